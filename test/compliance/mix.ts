/** The mix of test/support/compliance/mix.ts for a short time; `npm run bench -- soak` runs it for five minutes. */
import t from 'tap';
import { mix } from '../support/compliance/mix.js';
import { Scene } from '../support/compliance/scene.js';
import { withoutRoot } from '../support/netns.js';
import { hexOf, untilTestFrames } from '../support/traffic.js';

const SECONDS = 20;
/** What a process may have grown by: the collector's slack and kept chunks. */
const MEMORY_SLACK_MIB = 64;

t.test('a mix of everything leaves everything as it began', { skip: withoutRoot, timeout: 150_000 }, async (t) => {
  const scene = await Scene.start({});
  t.teardown(() => scene.stop());
  const seed = Number(process.env['FWDFS_SEED'] ?? Date.now() % 1_000_000);
  t.comment(`FWDFS_SEED=${seed}`);
  const figures = await mix(scene, SECONDS, seed);
  t.comment(JSON.stringify({ calls: figures.calls, errors: figures.errors }));
  t.same(figures.unexpected, {}, 'no error that may not be');
  for (const call of ['open', 'read', 'write', 'poll', 'fsync', 'close', 'table', 'killed']) {
    t.ok((figures.calls[call] ?? 0) > 10, `${call}: ${figures.calls[call]}`);
  }
  t.equal(figures.after, figures.before, 'tables, names, descriptors, sockets, memberships');
  for (const [index, name] of ['forwarder', 'control device'].entries()) {
    const [before = 0, after = 0] = [figures.memoryBefore[index], figures.memoryAfter[index]];
    t.ok(after - before < MEMORY_SLACK_MIB, `${name}: ${before.toFixed(1)} MiB before, ${after.toFixed(1)} MiB after`);
  }
  t.notMatch(`${scene.lab.forwarder?.log}${scene.lab.control?.log}`, /unexpectedly/);

  const cat = await scene.reader('eth0:ether:0x88b5');
  const frames = scene.incoming(3);
  await scene.put(frames);
  t.same(hexOf(await untilTestFrames(cat, 3)), hexOf(frames), 'and it still serves');
});
