/** src/control/link-addresses.ts: which addresses no virtual IF may have. What is pinned: test/control/pin.ts, test/e2e/vif.ts. */
import t from 'tap';
import { Changes } from '../../src/base/changes.js';
import { silent } from '../../src/base/log.js';
import type { ForwarderLink } from '../../src/control/forwarder-link.js';
import { LinkAddresses } from '../../src/control/link-addresses.js';
import { ATTRIBUTES } from '../support/fake-forwarder.js';

interface FakeLink {
  readonly link: ForwarderLink;
  connect(remoteAddress: string): void;
}

function fakeLink(): FakeLink {
  const state = { remoteAddress: '' };
  const changes = { state: new Changes() };
  return {
    link: { state, changes } as unknown as ForwarderLink,
    connect(remoteAddress) {
      state.remoteAddress = remoteAddress;
      changes.state.tell();
    },
  };
}

const attributes = { ...ATTRIBUTES, inet: ['10.0.0.1/24', '10.0.0.7/32'], inet6: ['2001:db8::1/64'] };

t.test('the address of a URL is known before there is a connection', async (t) => {
  const addresses = new LinkAddresses(silent);
  const one = fakeLink();
  addresses.follow(one.link, 'ws://10.0.0.7:7440');
  addresses.follow(fakeLink().link, 'ws://[2001:db8::1]:7440');
  addresses.follow(fakeLink().link, 'ws+unix:/run/fwdfs/s');
  t.equal(addresses.among(attributes), '10.0.0.7');
  t.same([addresses.without(attributes).inet, addresses.without(attributes).inet6], [['10.0.0.1/24'], []]);
  addresses.forget(one.link);
  t.same(addresses.without(attributes).inet, attributes.inet);
});

t.test('one that a connection shows is told, and stays known while the connection is lost', async (t) => {
  const addresses = new LinkAddresses(silent);
  const { connect, link } = fakeLink();
  let told = 0;
  addresses.changes.listen(() => void (told += 1));
  addresses.follow(link, 'wss://fwd1.example');
  t.equal(addresses.among(attributes), undefined);
  for (const address of ['10.0.0.1', '', '10.0.0.1']) connect(address);
  t.equal(told, 1);
  t.equal(addresses.among(attributes), '10.0.0.1');
  connect('10.0.0.9');
  t.equal(told, 2);
  t.same(addresses.without(attributes).inet, ['10.0.0.7/32']);
});
