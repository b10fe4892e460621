/** src/packet/pcap.ts: golden headers into a buffer of junk, read back by the reader of our own and by eye. */
import t from 'tap';
import * as pcap from '../../src/packet/pcap.js';
import { pcapHeader, pcapRecord } from '../vectors/packet-captures.js';

t.test('the file header goes to its place and only there', async (t) => {
  const out = Buffer.alloc(30, 0xa5);
  pcap.writeFileHeader(out, 3, pcap.LINKTYPE_ETHERNET);
  const golden = '4d3cb2a1' + '0200' + '0400' + '00000000' + '00000000' + '00000400' + '01000000';
  t.equal(out.toString('hex'), `a5a5a5${golden}a5a5a5`);
  pcap.writeFileHeader(out, 3, pcap.LINKTYPE_RAW);
  t.equal(out.readUInt32LE(3 + pcap.PCAP_FILE.linkType), 101);
  const theirs = pcapHeader({ nano: true, linkType: 101 });
  theirs.writeUInt32LE(pcap.PCAP_SNAP_LENGTH, pcap.PCAP_FILE.snapLength);
  t.same(out.subarray(3, 3 + pcap.PCAP_FILE_HEADER_BYTES), theirs);
});

t.test('a record header goes to its place and only there', async (t) => {
  const out = Buffer.alloc(22, 0xa5);
  pcap.writeRecordHeader(out, 3, 0x65532101, 999_999_999, 60, 1514);
  t.equal(out.toString('hex'), `a5a5a5${'01215365' + 'ffc99a3b' + '3c000000' + 'ea050000'}a5a5a5`);
  const frame = { data: Buffer.alloc(60), seconds: 0x65532101, nanoseconds: 999_999_999 };
  t.same(out.subarray(3, 3 + pcap.PCAP_RECORD_HEADER_BYTES), pcapRecord(frame, { nano: true }, 1514).subarray(0, 16));
});

t.test('headers print in one line', async (t) => {
  const out = Buffer.alloc(16);
  pcap.writeRecordHeader(out, 0, 1_700_000_000, 1, 60, 1514);
  t.equal(pcap.formatRecordHeader(out, 0), '1700000000.000000001, 60 of 1514 bytes');
  t.equal(pcap.formatLinkType(1), '1 (Ethernet)');
  t.equal(pcap.formatLinkType(101), '101 (raw IP)');
  t.equal(pcap.formatLinkType(113), '113');
});
