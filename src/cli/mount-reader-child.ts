/** The other side of mount-reader.ts: does one file call per request, any number at once, and ends with its parent. */
import { type FileHandle, open, readdir, readFile, stat } from 'node:fs/promises';
import { errnoOf } from '../base/errors.js';
import type { Reply, Request } from './mount-reader.js';

/** Open for as long as this process lives. */
const held: FileHandle[] = [];

async function perform(request: Request): Promise<string | string[]> {
  const { path } = request;
  switch (request.op) {
    case 'list':
      return await readdir(path);
    case 'mode':
      return String((await stat(path)).mode & 0o777);
    case 'read':
      return await readFile(path, 'utf8');
    case 'hold': {
      const file = await open(path, 'w');
      held.push(file);
      await file.write(request.text);
      return '';
    }
    case 'write': {
      const file = await open(path, 'w');
      try {
        await file.write(request.text);
      } finally {
        await file.close();
      }
      return '';
    }
  }
}

async function answer(request: Request): Promise<Reply> {
  try {
    return { id: request.id, value: await perform(request) };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'EIO';
    return { id: request.id, code, errno: errnoOf(error) };
  }
}

process.on('message', (request: Request) => {
  void answer(request).then((reply) => process.send?.(reply));
});
