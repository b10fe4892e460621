/**
 * `npm run bench -- soak [SECONDS] [SEED]`: the mix of test/support/compliance/mix.ts for five minutes or as long as said.
 * Prints what was called, and tables, descriptors and memory before and after.
 */
import { mix } from '../test/support/compliance/mix.js';
import { Scene } from '../test/support/compliance/scene.js';

const DEFAULT_SECONDS = 300;

export async function benchSoak([seconds = String(DEFAULT_SECONDS), seed = '1']: readonly string[]): Promise<void> {
  const scene = await Scene.start({});
  try {
    const { calls, errors, unexpected, before, after, memoryBefore, memoryAfter } = await mix(
      scene,
      Number(seconds),
      Number(seed),
    );
    const counts = (of: Readonly<Record<string, number>>): string =>
      Object.entries(of)
        .map(([name, count]) => `${name} ${count}`)
        .join(', ') || 'none';
    const mebibytes = (values: readonly number[]): string => values.map((value) => value.toFixed(1)).join(' + ');
    process.stdout.write(`calls: ${counts(calls)}
errors: ${counts(errors)}
unexpected: ${counts(unexpected)}
memory of forwarder + control device: ${mebibytes(memoryBefore)} MiB before, ${mebibytes(memoryAfter)} MiB after
${before === after ? `as it began:\n${after}` : `before:\n${before}\nafter:\n${after}`}
`);
    if (before !== after || Object.keys(unexpected).length > 0) process.exitCode = 1;
  } finally {
    await scene.stop();
  }
}
