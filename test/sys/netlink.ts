import t from 'tap';
import { constants } from 'node:os';
import { SystemError } from '../../src/base/errors.js';
import { Netlink } from '../../src/sys/netlink.js';
import {
  attribute,
  attributes,
  cString,
  encode,
  IFA,
  IFADDRMSG,
  IFINFOMSG,
  IFLA,
  NLM_F,
  RTA,
  RTM,
  RTMGRP,
  RTMSG,
} from '../../src/sys/rtnetlink.js';
import { Netns, withoutRoot } from '../support/netns.js';

const E = constants.errno;

/** A namespace with lo up, and a socket for requests in it. */
async function setUp(t: { teardown: (undo: () => void) => void }): Promise<{ netns: Netns; netlink: Netlink }> {
  const netns = new Netns('nl');
  t.teardown(() => netns.remove());
  netns.run('ip link set lo up');
  const netlink = await netns.within(() => new Netlink());
  t.teardown(() => netlink.close());
  return { netns, netlink };
}

const address = Buffer.concat([
  encode(IFADDRMSG, { family: 2, prefixLength: 24, index: 1 }),
  attribute(IFA.LOCAL, Buffer.from([10, 9, 8, 7])),
]);

/** What a request throws. */
function failureOf(work: () => void): SystemError | null {
  try {
    work();
  } catch (error) {
    if (error instanceof SystemError) return error;
    throw error;
  }
  return null;
}

t.test('a request adds an address and a route in the namespace of the socket', { skip: withoutRoot }, async (t) => {
  const { netns, netlink } = await setUp(t);
  netlink.request(RTM.NEWADDR, NLM_F.CREATE | NLM_F.EXCL, address);
  t.match(netns.run('ip -4 addr show lo'), /10\.9\.8\.7\/24/);
  const index = Buffer.from([1, 0, 0, 0]);
  const route = Buffer.concat([
    encode(RTMSG, { family: 2, destinationLength: 16, table: 254, protocol: 4, scope: 253, type: 1 }),
    attribute(RTA.DST, Buffer.from([172, 16, 0, 0])),
    attribute(RTA.OIF, index),
  ]);
  netlink.request(RTM.NEWROUTE, NLM_F.CREATE | NLM_F.EXCL, route);
  t.match(netns.run('ip -4 route'), /172\.16\.0\.0\/16 dev lo/);
  netlink.request(RTM.DELROUTE, 0, route);
  t.equal(netns.run('ip -4 route').includes('172.16'), false);
});

t.test(
  'a refused request throws its errno with the words of the kernel, and the next one works',
  { skip: withoutRoot },
  async (t) => {
    const { netlink } = await setUp(t);
    netlink.request(RTM.NEWADDR, NLM_F.CREATE | NLM_F.EXCL, address);
    const twice = failureOf(() => netlink.request(RTM.NEWADDR, NLM_F.CREATE | NLM_F.EXCL, address));
    t.equal(twice?.errno, E.EEXIST);
    t.match(twice?.message, /netlink request 20 \(.*already assigned.*\): EEXIST/);
    const nowhere = Buffer.from(address);
    nowhere.writeUInt32LE(4711, 4);
    t.equal(failureOf(() => netlink.request(RTM.NEWADDR, NLM_F.CREATE, nowhere))?.errno, E.ENODEV);
    t.equal(
      failureOf(() => netlink.request(RTM.DELADDR, 0, address)),
      null,
    );
  },
);

t.test('a query gives one object, or all of them', { skip: withoutRoot }, async (t) => {
  const { netns, netlink } = await setUp(t);
  netns.run('ip link add va type veth peer name vb');
  const names = (flags: number, index: number): string[] => {
    const found: string[] = [];
    const complete = netlink.query(RTM.GETLINK, flags, encode(IFINFOMSG, { index }), ({ body }) => {
      found.push(cString(attributes(body, IFINFOMSG.bytes).get(IFLA.IFNAME) ?? Buffer.alloc(0)));
    });
    t.equal(complete, true);
    return found;
  };
  t.same(names(0, 1), ['lo']);
  t.same(names(NLM_F.DUMP, 0).sort(), ['lo', 'va', 'vb']);
  t.equal(failureOf(() => names(0, 4711))?.errno, E.ENODEV);
});

t.test(
  'a socket of a group receives what changes, and EAGAIN when there is nothing',
  { skip: withoutRoot },
  async (t) => {
    const { netns } = await setUp(t);
    const events = await netns.within(() => new Netlink({ groups: RTMGRP.LINK }));
    t.teardown(() => events.close());
    const types: number[] = [];
    const receive = (): number => events.receive(({ type }) => types.push(type));
    t.equal(receive(), -E.EAGAIN);
    netns.run('ip link set lo mtu 1400');
    t.ok(receive() > 0);
    t.same(types, [RTM.NEWLINK]);
    events.close();
    t.equal(receive(), -E.EBADF);
  },
);
