/** The project's own files, as the tests of its documents read them. Paths are relative to the project's root, with `/`. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';

const ROOT = new URL('../../../', import.meta.url);

export function projectFile(path: string): string {
  return readFileSync(new URL(path, ROOT), 'utf8');
}

export function projectHas(path: string): boolean {
  return existsSync(new URL(path, ROOT));
}

/** Every TypeScript file below a folder, sorted. */
export function typescriptFiles(folder: string): string[] {
  const found: string[] = [];
  for (const entry of readdirSync(new URL(`${folder}/`, ROOT), { withFileTypes: true })) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) found.push(...typescriptFiles(path));
    else if (entry.name.endsWith('.ts')) found.push(path);
  }
  return found.sort();
}

/** The rows of every Markdown table in `text` whose first header cell is `first`, without the header; cells are trimmed. */
export function tableRows(text: string, first: string): string[][] {
  const rows: string[][] = [];
  let inside = false;
  for (const line of text.split('\n')) {
    if (!line.startsWith('|')) {
      inside = false;
      continue;
    }
    const cells = line
      .replaceAll('\\|', '\0')
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.replaceAll('\0', '|').trim());
    if (cells[0] === first) inside = true;
    else if (inside && !/^-+$/.test(cells[0] ?? '')) rows.push(cells);
  }
  return rows;
}
