/**
 * Nodeids: the numbers under which the kernel knows what it looked up.
 *
 * Directories and text files keep one nodeid as long as the kernel remembers them. A stream gets a fresh one for every
 * LOOKUP, so that every open has a kernel inode of its own: the kernel locks the inode while a WRITE is unanswered, and one
 * opener's held write would make every other opener's write, O_TRUNC and utimes wait. The inode number that programs see
 * is the node's in either case.
 *
 * The kernel counts the replies in which it got a nodeid and gives them back by FORGET; at 0 the nodeid is gone and never
 * comes again.
 */
import { constants } from 'node:os';
import { FwdfsError, SystemError } from '../base/errors.js';
import { MAX_NODES } from '../base/limits.js';
import type { DirectoryNode, Node } from './tree.js';

export const ROOT_NODEID = 1;

interface Known {
  readonly nodeid: number;
  node: Node;
  lookups: number;
  /** Of a directory or text file: its name's place. Undefined for the root and for streams. */
  readonly parent: Known | undefined;
  readonly name: string;
  /** Of a directory: what keeps its nodeid in it. */
  readonly children: Map<string, Known> | undefined;
}

export class NodeTable {
  private readonly known = new Map<number, Known>();
  private nextId = ROOT_NODEID + 1;
  private readonly limit: number;

  constructor(root: DirectoryNode, limit = MAX_NODES) {
    this.limit = limit;
    this.known.set(ROOT_NODEID, {
      nodeid: ROOT_NODEID,
      node: root,
      lookups: 1,
      parent: undefined,
      name: '',
      children: new Map(),
    });
  }

  /** Nodeids that the kernel holds. */
  get size(): number {
    return this.known.size;
  }

  /** Throws ESTALE for a nodeid that was forgotten. */
  get(nodeid: number): Node {
    return this.entry(nodeid).node;
  }

  /** Throws ENOTDIR for a file. */
  directory(nodeid: number): DirectoryNode {
    const { node } = this.entry(nodeid);
    if (node.kind !== 'directory') throw new SystemError('lookup', constants.errno.ENOTDIR);
    return node;
  }

  /** Inode number of the directory that a directory is in; of the root, its own. */
  parentIno(nodeid: number): number {
    const entry = this.entry(nodeid);
    return (entry.parent ?? entry).node.ino;
  }

  /** Counts one LOOKUP of `name` in a directory that found `node`, and returns the nodeid to answer with. */
  looked(parentId: number, name: string, node: Node): number {
    const parent = this.entry(parentId);
    const stable = node.kind === 'directory' || !node.stream;
    if (stable) {
      const before = parent.children?.get(name);
      // An inode can't change its type or its number: another thing of that name is another nodeid.
      if (before !== undefined && before.node.kind === node.kind && before.node.ino === node.ino) {
        before.node = node;
        before.lookups++;
        return before.nodeid;
      }
    }
    if (this.known.size >= this.limit) throw new FwdfsError('too-many', 'the file tree has too many live nodes');
    const entry: Known = {
      nodeid: this.nextId++,
      node,
      lookups: 1,
      parent: stable ? parent : undefined,
      name,
      children: node.kind === 'directory' ? new Map() : undefined,
    };
    this.known.set(entry.nodeid, entry);
    if (stable) parent.children?.set(name, entry);
    return entry.nodeid;
  }

  forget(nodeid: number, lookups: number): void {
    const entry = this.known.get(nodeid);
    if (entry === undefined || nodeid === ROOT_NODEID) return;
    entry.lookups -= lookups;
    if (entry.lookups > 0) return;
    this.known.delete(nodeid);
    if (entry.parent?.children?.get(entry.name) === entry) entry.parent.children.delete(entry.name);
  }

  private entry(nodeid: number): Known {
    const entry = this.known.get(nodeid);
    if (entry === undefined) throw new SystemError('lookup', constants.errno.ESTALE, `nodeid ${nodeid}`);
    return entry;
  }
}
