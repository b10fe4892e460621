/** src/packet/virtio.ts: golden headers both ways. */
import fc from 'fast-check';
import t from 'tap';
import * as virtio from '../../src/packet/virtio.js';

const HEADER = { flags: 1, gsoType: 0x81, hdrLen: 66, gsoSize: 1448, csumStart: 34, csumOffset: 16 };
const GOLDEN = '0181' + '4200' + 'a805' + '2200' + '1000';

t.test('a header goes into a buffer of junk at its place, and only there', async (t) => {
  const out = Buffer.alloc(16, 0xa5);
  virtio.writeVnetHeader(out, 3, HEADER);
  t.equal(out.toString('hex'), `a5a5a5${GOLDEN}a5a5a5`);
  t.same(virtio.readVnetHeader(out, 3), HEADER);
  t.equal(virtio.vnetField(out, 3, virtio.VNET.gsoSize), 1448);
});

t.test('a header of nothing is ten zeros', async (t) => {
  const out = Buffer.alloc(12, 0xa5);
  virtio.writeVnetHeader(out, 1);
  t.equal(out.toString('hex'), `a5${'00'.repeat(virtio.VNET_HEADER_BYTES)}a5`);
});

t.test('any header comes back as it was written', async () => {
  const u8 = fc.nat(255);
  const u16 = fc.nat(65535);
  const headers = fc.record({ flags: u8, gsoType: u8, hdrLen: u16, gsoSize: u16, csumStart: u16, csumOffset: u16 });
  fc.assert(
    fc.property(headers, (header) => {
      const out = Buffer.alloc(virtio.VNET_HEADER_BYTES);
      virtio.writeVnetHeader(out, 0, header);
      const back = virtio.readVnetHeader(out, 0);
      return JSON.stringify(Object.entries(back).sort()) === JSON.stringify(Object.entries(header).sort());
    }),
  );
});

t.test('a header prints in one line', async (t) => {
  const print = (header: Partial<virtio.VnetHeader>): string => {
    const out = Buffer.alloc(virtio.VNET_HEADER_BYTES);
    virtio.writeVnetHeader(out, 0, header);
    return virtio.formatVnetHeader(out, 0);
  };
  t.equal(print(HEADER), 'gso tcpv4+ecn 1448, headers 66, checksum 34+16');
  t.equal(print({}), 'gso none');
  t.equal(print({ flags: 2 }), 'gso none, data valid');
  t.equal(print({ gsoType: 4, gsoSize: 9, hdrLen: 8 }), 'gso tcpv6 9, headers 8');
  t.equal(print({ gsoType: 5, gsoSize: 9 }), 'gso udp_l4 9, headers 0');
  t.equal(print({ gsoType: 3 }), 'gso udp 0, headers 0');
  t.equal(print({ gsoType: 7 }), 'gso 7 0, headers 0');
});
