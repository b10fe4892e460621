/**
 * A web server and a web client, unmodified, on a virtual IF; the other side is a plain host.
 *
 *     curl (node) --> eth0 (forwarder) --> fwd1-eth0: nginx           and back: curl on fwd1-eth0 --> nginx (node)
 */
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { InteropLab, type Kind, nginx } from '../support/interop.js';
import { until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';

const LARGE_BYTES = 100 << 20;
const KINDS: readonly Kind[] = ['tap', 'tun'];

for (const kind of KINDS) {
  t.test(
    `${kind}: nginx serves at the forwarder's addresses while it runs, and knows its clients`,
    { skip: withoutRoot },
    async (t) => {
      const lab = await InteropLab.start();
      t.teardown(() => lab.stop());
      const { node, ctl, folder } = lab.lab;
      await lab.addVif(kind);
      const large = randomBytes(LARGE_BYTES);
      const words = nginx(lab, { 'index.html': 'hello\n', large });
      const get = (url: string): Promise<string> => lab.says(node, 'curl', '-sS', '--max-time', '10', url);
      const server = lab.daemon(ctl, words);
      await lab.untilRule('tcp:80');
      t.equal(await get('http://10.9.0.1/'), 'hello\n');
      t.equal(await get('http://[fd09::1]/'), 'hello\n');
      const clients = readFileSync(join(folder, 'nginx-web', 'access.log'), 'utf8')
        .trim()
        .split('\n')
        .map((line) => line.split(' ')[0]);
      t.same(clients, ['10.9.0.2', 'fd09::2'], 'client addresses are preserved');

      const result = await lab.on(node, ['curl', '-sS', '--max-time', '60', 'http://10.9.0.1/large'], '', 90_000);
      t.equal(result.stderr, '');
      t.equal(hash(result.stdout), hash(large), '100 MB arrive as they are');

      await server.end();
      await lab.untilRule('tcp:80', false);
      const refused = await lab.on(node, ['curl', '-sS', '--max-time', '1', 'http://10.9.0.1/']);
      t.not(refused.status, 0, 'nobody answers any more');
      await until(async () => (await lab.lab.table('distribution')).every(([, protocol]) => protocol !== 'tcp:80'));
    },
  );

  t.test(
    `${kind}: curl on the virtual IF fetches from a host beyond the forwarder`,
    { skip: withoutRoot },
    async (t) => {
      const lab = await InteropLab.start();
      t.teardown(() => lab.stop());
      const { node, ctl } = lab.lab;
      const large = randomBytes(LARGE_BYTES);
      const server = lab.daemon(node, nginx(lab, { 'index.html': 'hello\n', large }));
      await lab.addVif(kind);
      await until(async () => (await lab.on(node, ['curl', '-s', 'http://10.9.0.2/'])).status === 0);
      const get = (...words: string[]): Promise<string> => lab.says(ctl, 'curl', '-sS', '--max-time', '10', ...words);
      t.equal(await get('http://10.9.0.2/'), 'hello\n', 'by the connected route');
      t.equal(await get('--interface', 'fwd1-eth0', 'http://10.9.0.2/'), 'hello\n', 'bound to the device');
      t.equal(await get('--interface', '10.9.0.1', 'http://10.9.0.2/'), 'hello\n', 'bound to the address');
      t.equal(await get('http://[fd09::2]/'), 'hello\n');
      const result = await lab.on(ctl, ['curl', '-sS', '--max-time', '60', 'http://10.9.0.2/large'], '', 90_000);
      t.equal(hash(result.stdout), hash(large), '100 MB arrive as they are');
      for (let i = 0; i < 50; i++) t.equal(await get('http://10.9.0.2/'), 'hello\n', 'the first answer is never lost');
      t.equal(await lab.lab.counter('drop_no_credit'), 0);
      await server.end();
    },
  );
}

t.test(
  'a file of the same interface shows the bulk of a virtual IF as wire frames with finished checksums',
  { skip: withoutRoot },
  async (t) => {
    const lab = await InteropLab.start();
    t.teardown(() => lab.stop());
    const { node, ctl } = lab.lab;
    await lab.addVif();
    lab.daemon(ctl, nginx(lab, { large: randomBytes(2 << 20) }));
    await lab.untilRule('tcp:80');
    const reader = await lab.lab.reader('eth0:tcp:both');
    const result = await lab.on(node, ['curl', '-sS', '--max-time', '20', 'http://10.9.0.1/large']);
    t.equal(result.stdout.length, 2 << 20, result.stderr);
    await reader.untilOutput((output) => output.length > 2 << 20);
    await reader.kill('SIGINT');
    const file = lab.file('both.pcap', reader.output);
    const said = await lab.says(node, 'tcpdump', '-nvvr', file);
    const sums = said.match(/cksum 0x[0-9a-f]+ \((correct|incorrect)/g) ?? [];
    t.ok(sums.filter((sum) => sum.endsWith('(correct')).length > 1000, `${sums.length} checksums`);
    t.same(
      sums.filter((sum) => sum.endsWith('(incorrect')),
      [],
    );
    t.notMatch(said, /bad-len|length [0-9]{5}/, 'nothing is longer than a wire frame');
  },
);

function hash(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
