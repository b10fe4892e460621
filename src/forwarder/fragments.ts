/**
 * Fragments follow their first fragment: only the first has the ports.
 *
 * A table with WAYS places per hash of (source, destination, identification) and, for IPv4 (RFC 791), protocol: a newer
 * datagram takes the place of the oldest one there, so nothing grows and nothing is swept. The whole key is compared by a second
 * hash over the same fields; a chance of one in 2^32 per pair of datagrams that share a place is accepted. In IPv6 the
 * protocol too is the first fragment's to tell: extension headers may stand between (RFC 8200, 4.5).
 */
import { FRAGMENT_TABLE_SIZE, FRAGMENT_TIME_MS } from '../base/limits.js';
import type { FrameView } from '../packet/headers.js';
import { IPV4_ADDRESS_BYTES } from '../packet/ip-address.js';

const WAYS = 4;
const WORDS = 5; // check hash, source port, destination port, protocol, time in seconds

export class FragmentTable {
  private readonly words = new Float64Array(FRAGMENT_TABLE_SIZE * WORDS);
  /** Number of the places of the hash, and what tells the datagrams there apart. */
  private places = 0;
  private check = 0;

  private hash(view: FrameView, frame: Buffer): void {
    const bytes = view.addressLength;
    const protocol = bytes === IPV4_ADDRESS_BYTES ? view.protocol : 0;
    let a = (view.fragmentId ^ (protocol << 24)) | 0;
    let b = Math.imul(view.fragmentId + 0x9e3779b9, 0x85ebca6b) ^ protocol;
    for (let i = 0; i < bytes; i++) {
      a = Math.imul(a ^ (frame[view.sourceOffset + i] ?? 0), 0x01000193);
      b = Math.imul(b + (frame[view.sourceOffset + i] ?? 0), 0xcc9e2d51);
      a = Math.imul(a ^ (frame[view.destinationOffset + i] ?? 0), 0x01000193);
      b = Math.imul(b ^ ((frame[view.destinationOffset + i] ?? 0) << 7), 0x1b873593);
    }
    this.places = ((a ^ (a >>> 15)) >>> 0) % (FRAGMENT_TABLE_SIZE / WAYS);
    this.check = (b >>> 0) + 1;
  }

  /** Where the datagram stands; -1: nowhere. */
  private find(): number {
    const first = this.places * WAYS * WORDS;
    for (let at = first; at < first + WAYS * WORDS; at += WORDS) if (this.words[at] === this.check) return at;
    return -1;
  }

  private oldest(): number {
    const first = this.places * WAYS * WORDS;
    let oldest = first;
    for (let at = first; at < first + WAYS * WORDS; at += WORDS) {
      if (this.words[at + 4]! < this.words[oldest + 4]!) oldest = at;
    }
    return oldest;
  }

  /** @param seconds receive time of the frame */
  remember(view: FrameView, frame: Buffer, seconds: number): void {
    this.hash(view, frame);
    const known = this.find();
    const at = known < 0 ? this.oldest() : known;
    this.words[at] = this.check;
    this.words[at + 1] = view.sourcePort;
    this.words[at + 2] = view.destinationPort;
    this.words[at + 3] = view.protocol;
    this.words[at + 4] = seconds;
  }

  /** Sets protocol and ports of a later fragment in `view`. @returns false when its first fragment is not known */
  recall(view: FrameView, frame: Buffer, seconds: number): boolean {
    this.hash(view, frame);
    const at = this.find();
    if (at < 0) return false;
    if (seconds - (this.words[at + 4] ?? 0) > FRAGMENT_TIME_MS / 1000) return false;
    view.sourcePort = this.words[at + 1] ?? -1;
    view.destinationPort = this.words[at + 2] ?? -1;
    view.protocol = this.words[at + 3] ?? -1;
    return true;
  }
}
