/**
 * Tracepoints of the kernel as events: perf_event_open(2), for the whole machine, whatever the namespace.
 *
 *     tracefs --ids--> one perf event a tracepoint and processor, with its filter --records--> one ring a processor
 *                                                                                 --SIGIO--> readiness --drain--> onHit
 *
 *     ring: a page of struct perf_event_mmap_page, then a power of two of pages of records
 *      0               4       6       8                        16
 *     +---------------+-------+-------+------------------------+
 *     | type          | misc  | size  | id of the perf event   |      (PERF_RECORD_SAMPLE with PERF_SAMPLE_IDENTIFIER)
 *     +---------------+-------+-------+------------------------+
 *
 * A record says only which tracepoint was hit; who wants to know more looks at the thing itself. The events of a processor
 * share its first one's ring, so that readiness has one descriptor a processor to ask. A processor that comes later has none.
 *
 * tracefs, which is mounted on few hosts, is mounted in a folder of our own for as long as it takes to read the ids.
 */
import { existsSync, mkdtempSync, readFileSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Mapping } from './libc.js';
import { closeLater, mmap, must, pageBytes, sys } from './libc.js';
import type { Source } from './readiness.js';
import { readiness } from './readiness.js';

export interface Tracepoint {
  /** As in the folder `events` of tracefs: `syscalls/sys_exit_bind`. */
  readonly name: string;
  /** Of the fields in its `format`: `ret == 0`. */
  readonly filter: string;
}

const ATTR_BYTES = 128;
const PERF_TYPE_TRACEPOINT = 2;
const PERF_SAMPLE_IDENTIFIER = 1 << 16;
const ATTR_DISABLED = 1;
const PERF_FLAG_FD_CLOEXEC = 8;
const EVERY_PROCESS = -1;
const IOC = { ENABLE: 0x2400, SET_OUTPUT: 0x2405, SET_FILTER: 0x40082406, ID: 0x80082407 } as const;
/** In units of 8 bytes, in the first page of a mapping. */
const DATA_HEAD = 1024 / 8;
const DATA_TAIL = 1032 / 8;
const RECORD_HEADER_BYTES = 8;
const PERF_RECORD_LOST = 2;
const PERF_RECORD_SAMPLE = 9;
const MNT_DETACH = 2;
/** How long hits that come by the thousand are gathered. */
const REST_MS = 8;
const TRACEFS_FOLDERS = ['/sys/kernel/tracing', '/sys/kernel/debug/tracing'];

/** Runs `step` with a folder in which tracefs is. */
function withTracefs<T>(step: (folder: string) => T): T {
  const mounted = TRACEFS_FOLDERS.find((folder) => existsSync(join(folder, 'events')));
  if (mounted !== undefined) return step(mounted);
  const folder = mkdtempSync(join(tmpdir(), 'fwdfs-tracefs-'));
  try {
    must('mount', sys.mount('tracefs', folder, 'tracefs', 0, ''), 'tracefs');
    try {
      return step(folder);
    } finally {
      sys.umount2(folder, MNT_DETACH);
    }
  } finally {
    rmdirSync(folder);
  }
}

/** The processors that are online, by number. */
function processors(text = readFileSync('/sys/devices/system/cpu/online', 'latin1')): number[] {
  return text
    .trim()
    .split(',')
    .flatMap((range) => {
      const [first = 0, last = first] = range.split('-').map(Number);
      return Array.from({ length: last - first + 1 }, (_, index) => first + index);
    });
}

class Ring {
  private readonly mapping: Mapping;
  private readonly positions: BigUint64Array;
  private readonly records: Buffer;

  constructor(fd: number) {
    const page = pageBytes();
    this.mapping = mmap(fd, 2 * page);
    this.positions = new BigUint64Array(this.mapping.bytes, 0, page / 8);
    this.records = Buffer.from(this.mapping.bytes, page, page);
  }

  /** Takes all records. @param each gets the id of a perf event, or -1 where some were lost */
  take(each: (id: number) => void): void {
    const size = this.records.length;
    const head = Number(this.positions[DATA_HEAD]);
    let tail = Number(this.positions[DATA_TAIL]);
    // A ring that is full has lost what came last.
    if (head - tail > size / 2) each(-1);
    while (tail < head) {
      // Records are multiples of 8 bytes, so a header never wraps.
      const at = tail % size;
      const type = this.records.readUInt32LE(at);
      const bytes = this.records.readUInt16LE(at + 6);
      if (type === PERF_RECORD_LOST) each(-1);
      if (type === PERF_RECORD_SAMPLE) each(this.records.readUInt32LE((at + RECORD_HEADER_BYTES) % size));
      tail += Math.max(bytes, RECORD_HEADER_BYTES);
    }
    this.positions[DATA_TAIL] = BigInt(tail);
  }

  unmap(): void {
    this.mapping.unmap();
  }
}

export class Tracepoints {
  private readonly points: readonly Tracepoint[];
  private readonly onHit: (points: ReadonlySet<Tracepoint>) => void;
  private readonly descriptors: number[] = [];
  private readonly rings: Ring[] = [];
  private readonly sources: Source[] = [];
  private readonly pointOfId = new Map<number, Tracepoint>();

  /**
   * @param onHit told which were hit since the last time; may be told of more, where events came too fast
   * @throws SystemError, or an error of node:fs: this kernel has none of them, or this process may not
   */
  constructor(points: readonly Tracepoint[], onHit: (points: ReadonlySet<Tracepoint>) => void) {
    this.points = points;
    this.onHit = onHit;
    try {
      const ids = withTracefs((folder) =>
        points.map(({ name }) => Number(readFileSync(join(folder, 'events', name, 'id'), 'latin1'))),
      );
      for (const cpu of processors()) this.openProcessor(cpu, ids);
      for (const source of this.sources) readiness.arm(source);
      for (const fd of this.descriptors) must('ioctl(PERF_EVENT_IOC_ENABLE)', sys.ioctlInt(fd, IOC.ENABLE, 0));
    } catch (error) {
      this.close();
      throw error;
    }
  }

  private openProcessor(cpu: number, ids: readonly number[]): void {
    const own: number[] = [];
    for (const [index, point] of this.points.entries()) {
      const fd = must('perf_event_open', this.open(ids[index] ?? 0, cpu), point.name);
      this.descriptors.push(fd);
      own.push(fd);
      must('ioctl(PERF_EVENT_IOC_SET_FILTER)', sys.ioctl(fd, IOC.SET_FILTER, Buffer.from(`${point.filter}\0`)));
      const id = Buffer.alloc(8);
      must('ioctl(PERF_EVENT_IOC_ID)', sys.ioctl(fd, IOC.ID, id));
      this.pointOfId.set(id.readUInt32LE(0), point);
      if (index === 0) this.rings.push(new Ring(fd));
      else must('ioctl(PERF_EVENT_IOC_SET_OUTPUT)', sys.ioctlInt(fd, IOC.SET_OUTPUT, own[0]!));
    }
    const [fd, ...also] = own;
    if (fd !== undefined) this.sources.push({ fd, also, restMs: REST_MS, drain: () => this.drain() });
  }

  private open(id: number, cpu: number): number {
    const attr = Buffer.alloc(ATTR_BYTES);
    attr.writeUInt32LE(PERF_TYPE_TRACEPOINT, 0);
    attr.writeUInt32LE(ATTR_BYTES, 4);
    attr.writeUInt32LE(id, 8);
    // Every hit is a sample, and wakes.
    attr.writeUInt32LE(1, 16);
    attr.writeUInt32LE(PERF_SAMPLE_IDENTIFIER, 24);
    attr.writeUInt32LE(ATTR_DISABLED, 40);
    attr.writeUInt32LE(1, 48);
    return sys.perfEventOpen(attr, EVERY_PROCESS, cpu, -1, PERF_FLAG_FD_CLOEXEC);
  }

  /** Takes what all rings hold. */
  private drain(): boolean {
    const hit = new Set<Tracepoint>();
    for (const ring of this.rings) {
      ring.take((id) => {
        const point = this.pointOfId.get(id);
        if (point !== undefined) hit.add(point);
        else for (const any of this.points) hit.add(any);
      });
    }
    if (hit.size > 0) this.onHit(hit);
    return false;
  }

  close(): void {
    for (const source of this.sources.splice(0)) readiness.disarm(source);
    for (const ring of this.rings.splice(0)) ring.unmap();
    // The kernel waits for its other processors before it lets a tracepoint go.
    for (const fd of this.descriptors.splice(0)) closeLater(fd);
  }
}
