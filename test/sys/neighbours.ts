import t from 'tap';
import { ifNameToIndex } from '../../src/sys/libc.js';
import { type Neighbour, Neighbours } from '../../src/sys/neighbours.js';
import { until } from '../support/lab.js';
import { connectVeth, Netns, withoutRoot } from '../support/netns.js';

interface Scene {
  readonly near: Netns;
  readonly far: Netns;
  readonly kernel: Neighbours;
  readonly index: number;
  readonly seen: Neighbour[];
}

async function setUp(t: { teardown: (undo: () => void) => void }): Promise<Scene> {
  const [near, far] = [new Netns('neigh'), new Netns('neigh')];
  t.teardown(() => {
    near.remove();
    far.remove();
  });
  connectVeth(
    { netns: near, name: 'eth0', addresses: ['10.9.0.1/24', 'fd09::1/64', 'fe80::1/64'] },
    { netns: far, name: 'n0', addresses: ['10.9.0.2/24', 'fd09::2/64'] },
  );
  const [kernel, index] = await near.within(() => [new Neighbours(), ifNameToIndex('eth0')] as const);
  t.teardown(() => kernel.close());
  const seen: Neighbour[] = [];
  kernel.onChange = (neighbour) => seen.push(neighbour);
  return { near, far, kernel, index, seen };
}

const IPV4 = Buffer.from([10, 9, 0, 2]);
const IPV6 = Buffer.from('fd090000000000000000000000000002', 'hex');
const macOf = (netns: Netns): string => /ether ([0-9a-f:]+)/.exec(netns.run('ip link show n0'))?.[1] ?? '';

t.test('a neighbour that is used is found, told of and known', { skip: withoutRoot }, async (t) => {
  const { far, kernel, index, seen } = await setUp(t);
  for (const address of [IPV4, IPV6]) {
    t.equal(kernel.find(index, address), null);
    kernel.use(index, address);
    await until(() => seen.some((one) => one.link !== null && one.address.equals(address)));
    t.equal(kernel.find(index, address)?.toString('hex'), macOf(far).replaceAll(':', ''));
  }
});

t.test('one that does not answer fails', { skip: withoutRoot }, async (t) => {
  const { kernel, index, seen } = await setUp(t);
  const silent = Buffer.from([10, 9, 0, 77]);
  kernel.use(index, silent);
  await until(() => seen.some((one) => one.failed && one.address.equals(silent)));
  t.equal(kernel.find(index, silent), null);
});

t.test('one that is taken away is told of', { skip: withoutRoot }, async (t) => {
  const { near, kernel, index, seen } = await setUp(t);
  near.run('ip neigh add 10.9.0.5 lladdr 02:00:00:00:00:05 dev eth0');
  await until(() => seen.some((one) => one.link?.toString('hex') === '020000000005'));
  near.run('ip neigh del 10.9.0.5 dev eth0');
  await until(() => seen.at(-1)?.failed === true);
  t.equal(kernel.find(index, Buffer.from([10, 9, 0, 5])), null);
});
