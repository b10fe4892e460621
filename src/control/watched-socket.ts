/** What the socket watcher tells of a socket. A value: a change puts another in its place, with the same id. */
export interface WatchedSocket {
  /** No other socket of this namespace has it, ever: kind with cookie or inode. */
  readonly id: string;
  readonly kind: 'stream' | 'datagram' | 'ping' | 'raw' | 'packet';
  /** IP protocol; of a packet socket the ether type, 0x0003: all, 0: none. */
  readonly protocol: number;
  /** 0: a packet socket. */
  readonly family: 4 | 6 | 0;
  readonly v6only: boolean;
  /** Local address, 4 bytes also where an IPv6 socket has an IPv4 address; null: any. */
  readonly address: Buffer | null;
  /** 0: none. A ping socket has its identifier here. */
  readonly port: number;
  /** Has a peer. */
  readonly connected: boolean;
  /** Kind stream only. */
  readonly listening: boolean;
  /** The interface it is bound to, 0: none. Of a raw socket listed in /proc it is not known, and 0. */
  readonly ifindex: number;
  readonly inode: number;
  /** A packet socket's own filter, classic BPF as hex; '': none. */
  readonly filter: string;
}
