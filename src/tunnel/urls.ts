/** The URLs of a forwarder: ws://HOST:PORT, wss://HOST:PORT and ws+unix:/path. */
import { FwdfsError } from '../base/errors.js';

export type ListenUrl =
  | { readonly kind: 'tcp' | 'tls'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

const UNIX = 'ws+unix:';
const MAX_UNIX_PATH_BYTES = 107;

/**
 * Where to listen, or where to connect to. An IPv6 address loses its brackets; a Unix path is taken as it is written.
 *
 * @throws FwdfsError 'bad-config'
 */
export function parseListenUrl(text: string): ListenUrl {
  if (text.startsWith(UNIX)) {
    const path = text.slice(UNIX.length).replace(/^\/\/(?=\/)/, '');
    // The kernel's sun_path; a longer path would be cut without a word.
    if (Buffer.byteLength(path) > MAX_UNIX_PATH_BYTES) {
      throw new FwdfsError('bad-config', `${text}: the path of a Unix socket has at most ${MAX_UNIX_PATH_BYTES} bytes`);
    }
    if (path.startsWith('/')) return { kind: 'unix', path };
    throw new FwdfsError('bad-config', `${text}: the path of a Unix socket starts with /`);
  }
  const url = URL.canParse(text) ? new URL(text) : null;
  const kind = url?.protocol === 'ws:' ? 'tcp' : url?.protocol === 'wss:' ? 'tls' : null;
  if (url === null || kind === null || url.hostname === '' || (url.pathname !== '/' && url.pathname !== '')) {
    throw new FwdfsError('bad-config', `${text}: write ws://HOST:PORT, wss://HOST:PORT or ws+unix:/PATH`);
  }
  // The parser drops the port where it is the protocol's own.
  const port = url.port === '' ? (kind === 'tls' ? 443 : 80) : Number(url.port);
  return { kind, host: url.hostname.replace(/^\[(.*)\]$/, '$1'), port };
}
