import t from 'tap';
import { CT_TCP, type ConntrackEntry } from '../../src/sys/conntrack.js';
import { isUnsettled, lostConnection } from '../../src/forwarder/vip-flows.js';

const ip = (text: string): Buffer => Buffer.from(text.split('.').map(Number));
const [CLIENT, VIP, SENDER] = ['10.9.0.2', '10.9.0.1', '169.254.7.1'].map(ip) as [Buffer, Buffer, Buffer];

const inbound = (protocol: number, state: number): ConntrackEntry => ({
  protocol,
  state,
  original: { source: CLIENT, destination: VIP, sourcePort: 40_000, destinationPort: 80 },
  reply: { source: SENDER, destination: CLIENT, sourcePort: 80, destinationPort: 40_000 },
  status: 0,
  name: Buffer.alloc(0),
});

/** What began at the control device; the vip's port is another than its own. */
const outbound: ConntrackEntry = {
  protocol: 6,
  state: CT_TCP.ESTABLISHED,
  original: { source: SENDER, destination: CLIENT, sourcePort: 5000, destinationPort: 179 },
  reply: { source: CLIENT, destination: VIP, sourcePort: 179, destinationPort: 5001 },
  status: 0,
  name: Buffer.alloc(0),
};

t.test('what has no connection, or none yet, is placed anew', (t) => {
  const settled = Object.entries(CT_TCP).filter(([, state]) => !isUnsettled(inbound(6, state)));
  t.same(
    settled.map(([name]) => name),
    ['ESTABLISHED', 'FIN_WAIT', 'CLOSE_WAIT', 'LAST_ACK', 'TIME_WAIT', 'CLOSE'],
  );
  for (const protocol of [17, 136]) t.equal(isUnsettled(inbound(protocol, 0)), true);
  t.same(
    [1, 2, 3, 4, 7].map((state) => isUnsettled(inbound(132, state))),
    [true, true, true, false, false],
  );
  t.end();
});

t.test('the ends of a lost connection are those that the client knows', (t) => {
  const ends = { remote: CLIENT, remotePort: 40_000, vip: VIP, port: 80 };
  t.same(lostConnection(inbound(6, CT_TCP.ESTABLISHED), SENDER), { ...ends, isIdle: true });
  t.same(lostConnection(inbound(6, CT_TCP.SYN_RECV), SENDER), { ...ends, isIdle: false });
  t.same(lostConnection(outbound, SENDER), { remote: CLIENT, remotePort: 179, vip: VIP, port: 5001, isIdle: true });
  for (const state of [CT_TCP.SYN_SENT, CT_TCP.TIME_WAIT, CT_TCP.CLOSE])
    t.equal(lostConnection(inbound(6, state), SENDER), null);
  t.equal(lostConnection(inbound(17, 0), SENDER), null);
  t.end();
});
