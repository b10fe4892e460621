/**
 * Every limit of the system, by name. LIMITS.md lists each with its reason and what happens beyond it; a test holds the two
 * together. Units are in the names.
 */

/** Largest frame that travels: a super-frame of 64 KiB with its link layer header and VLAN tags, rounded up. */
export const MAX_FRAME_BYTES = 65_664;
/** Largest WebSocket message on /tunnel; one that is larger closes the channel. */
export const MAX_TUNNEL_MESSAGE_BYTES = 1 << 20;
/** Largest message on /control; one that is larger closes the channel. */
export const MAX_CONTROL_MESSAGE_BYTES = 1 << 20;
/** Up frames are gathered until the batch holds this much, then sent. */
export const UP_BATCH_BYTES = 128 << 10;
/** Bytes that the forwarder may have under way on one up tunnel before the control device has taken them. */
export const UP_CREDIT_BYTES = 8 << 20;
/** Bytes that a control device may have under way on one down tunnel before the forwarder confirmed them. */
export const DOWN_WINDOW_BYTES = 2 << 20;
/** Frames that wait for one open file's reader; more are dropped, the newest first, and counted. */
export const READER_QUEUE_BYTES = 8 << 20;
/** What all readers' queues of a control device may hold together, in whole chunks. */
export const READER_TOTAL_BYTES = 1 << 30;
/** One chunk of a reader's queue, and of a writer's window. */
export const CHUNK_BYTES = 256 << 10;
/** Chunks that are kept for the next use when nobody needs them. */
export const CHUNK_POOL_COUNT = 64;
/** Largest FUSE READ and WRITE. */
export const FUSE_MAX_IO_BYTES = 1 << 20;
/** How long a read or write waits on a mount by fuse-native before it gives EINTR. */
export const FUSE_NATIVE_PATIENCE_MS = 1_000;
/** FUSE requests that one drain handles before timers and other descriptors get their turn. */
export const FUSE_DRAIN_COUNT = 256;
/** Packets that one receive call can bring. */
export const PACKET_BATCH_COUNT = 64;
/** Receive calls that one drain makes before timers and other descriptors get their turn. */
export const PACKET_DRAIN_CALLS = 16;
/** Receive buffer asked for on a packet socket. */
export const PACKET_RECEIVE_BUFFER_BYTES = 32 << 20;
/** Frames that one drain reads from a virtual IF before timers and other descriptors get their turn. */
export const TUN_DRAIN_COUNT = 256;
/** Neighbours of a virtual IF that are asked for at the forwarder at a time. */
export const MAX_NEIGHBOUR_QUESTIONS = 256;
/** The pinned way to a forwarder follows a change of the routes within this time. */
export const PIN_DELAY_MS = 100;
/** How long a suspended session keeps its rules. */
export const RESUME_TIME_MS = 30_000;
/** First wait before connecting again; it doubles, with jitter, up to RECONNECT_MAX_MS. */
export const RECONNECT_MIN_MS = 100;
export const RECONNECT_MAX_MS = 5_000;
/** A channel without any sign of life for this long is closed. */
export const KEEPALIVE_TIMEOUT_MS = 10_000;
/** A ping goes out this often. */
export const KEEPALIVE_INTERVAL_MS = 3_000;
/** How long a request on /control waits for its answer. */
export const REQUEST_TIMEOUT_MS = 10_000;
/** How long a channel may take from the TCP connection to the end of hello. */
export const HELLO_TIMEOUT_MS = 5_000;
/** Rules that one control device may hold at a forwarder. */
export const MAX_RULES_PER_CONTROL = 16_384;
/** Down tunnels that one control device may hold at a forwarder. */
export const MAX_DOWN_TUNNELS_PER_CONTROL = 16_384;
/** Claims at one forwarder. */
export const MAX_CLAIMS = 1024;
/** Sessions at one forwarder. */
export const MAX_SESSIONS = 256;
/** The coarse filter in the kernel follows a change of the rules within this time. */
export const COARSE_FILTER_DELAY_MS = 5;
/** Interfaces that come, go or change are told of within this time. */
export const INTERFACE_CHANGE_DELAY_MS = 50;
/** Text of a table that one answer carries; the rest of the rows is asked for by further requests. */
export const TABLE_PAGE_BYTES = 256 << 10;
/** The kernel's count of what was discarded is at most this old. */
export const DISCARD_COUNTS_MS = 100;
/** Protocol addresses above which the coarse filter passes everything. */
export const COARSE_FILTER_MAX_ADDRESSES = 64;
/** Datagrams whose fragments are followed at one interface. */
export const FRAGMENT_TABLE_SIZE = 1024;
/** How long the fragments of a datagram are followed. */
export const FRAGMENT_TIME_MS = 30_000;
/** A virtual IF of a configuration file that can't be made yet is tried again this often. */
export const VIF_RETRY_MS = 5000;
/** Virtual IFs of one control device. */
export const MAX_VIFS = 256;
/** Virtual IP addresses of one control device. */
export const MAX_VIPS = 64;
/** Flows of virtual IFs at one interface. */
export const MAX_FLOWS_PER_INTERFACE = 1_048_576;
/** How long a flow may be quiet: TCP that was not answered, TCP, after a FIN, after an RST. */
export const FLOW_TCP_NEW_MS = 120_000;
export const FLOW_TCP_MS = 432_000_000;
export const FLOW_CLOSED_MS = 120_000;
export const FLOW_TCP_RESET_MS = 10_000;
/** UDP and UDP-Lite, until answered and then. */
export const FLOW_UDP_MS = 30_000;
export const FLOW_UDP_ANSWERED_MS = 120_000;
/** ICMP echo. */
export const FLOW_ECHO_MS = 30_000;
/** All other protocols. */
export const FLOW_OTHER_MS = 600_000;
/** A share of the flows is looked at this often, all of them in FLOW_SWEEP_STEPS times. */
export const FLOW_SWEEP_MS = 250;
export const FLOW_SWEEP_STEPS = 16;
/** A TCP flow whose socket was closed may be quiet for this long, where other control devices serve its port. */
export const FLOW_LEFT_MS = 60_000;
/** Slots of a Maglev table: a prime, so that every permutation visits all. */
export const MAGLEV_SLOTS = 65_537;
/** Maglev tables that are kept; groups with the same members share one. */
export const MAX_MAGLEV_TABLES = 64;
/** Largest weight of a control device. */
export const MAX_WEIGHT = 256;
/** A control device with virtual IFs is asked this often whether it is there, by default. */
export const HEARTBEAT_MS = 250;
/** What `heartbeat:` may say. */
export const MIN_HEARTBEAT_MS = 50;
export const MAX_HEARTBEAT_MS = 60_000;
/** One that was not heard of for this many heartbeats gets no new flows; if its channels are gone, one more and its flows are given up. */
export const HEARTBEATS_AWAY = 3;
/** The flows of one that has its channels, and is not heard of for this many, are given up. */
export const HEARTBEATS_LOST = 12;
/** RSTs for given up connections that wait to be sent, at one interface. */
export const MAX_WAITING_RESETS = 131_072;
/** RSTs that are sent before others get their turn. */
export const RESET_SLICE_COUNT = 256;
/** Virtual IP addresses of one control device. */
export const MAX_VIPS_PER_CONTROL = 256;
/** Shares into which the new connections of a virtual IP address's port can be cut. */
export const MAX_VIP_SLOTS = 1024;
/** How long what a client still sends in a connection that was given up is answered with a reset. */
export const VIP_RESET_MS = 60_000;
/** A virtual IP address whose link came back is tried there for this long, before it is withdrawn. */
export const VIP_PLACE_MS = 30_000;
export const VIP_PLACE_RETRY_MS = 1_000;
/** A member of a virtual IP address's port that left is passed by for this long: by then the kernel's rules are without it. */
export const VIP_AWAY_MS = 60_000;
/** What the kernel counted for virtual IP addresses is at most this old. */
export const VIP_COUNTS_MS = 100;
/** Multicast groups that one virtual IF may be in. */
export const MAX_GROUPS_PER_VIF = 256;
/** How long a neighbour-request waits for the neighbour. */
export const NEIGHBOUR_TIMEOUT_MS = 1_000;
/** Destinations of tuns whose next hop is remembered at one interface. */
export const MAX_NEXT_HOPS = 4096;
/** Packets of tuns that wait for one next hop to be found. */
export const MAX_WAITING_PER_HOP = 64;
/** The kernel is told this often that a neighbour is in use by a tun. */
export const NEIGHBOUR_REFRESH_MS = 5_000;
/** Packets of tuns get their link layer header in blocks of this size. */
export const TUN_BLOCK_BYTES = 256 << 10;
/** Longest line of a hex write: a frame as hex digits with a separator each. */
export const MAX_HEX_LINE_BYTES = 3 * MAX_FRAME_BYTES;
/** Longest name of a symbol. */
export const MAX_SYMBOL_NAME_BYTES = 255;
/** Longest command line written to .ctl. */
export const MAX_COMMAND_BYTES = 4096;
/** How long the kernel may go by the name and attributes of a directory or text file. */
export const NAME_VALID_MS = 50;
/** Nodes of the file tree are swept at the next FORGET; this many may be alive at a time. */
export const MAX_NODES = 1_000_000;
