/** The kernel of the forwarder converts for control devices that are set up by hand: test/support/vip-lab.ts. */
import t from 'tap';
import { withoutRoot } from '../support/netns.js';
import { VIP4, VIP6, VipLab } from '../support/vip-lab.js';

t.test(
  'what comes to a rule of a virtual IP address reaches its control device, with the client as its source',
  { skip: withoutRoot },
  async (t) => {
    const lab = new VipLab(1);
    t.teardown(() => lab.stop());
    await lab.server(1);
    await lab.serve(1, VIP4, 'tcp:80');
    await lab.serve(1, VIP6, 'tcp:80');
    t.same(await lab.connect(VIP4), ['ctl1 10.9.0.2']);
    t.same(await lab.connect(VIP6), ['ctl1 fd09::2']);
  },
);
