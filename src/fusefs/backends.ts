/** Makes a backend by its name. What only one of them needs is loaded only when it is asked for. */
import type { BackendName, FuseBackend, FuseBackendOptions } from './backend.js';

/** @throws {FwdfsError} host-lacks: says what to install */
export async function makeBackend(name: BackendName, options: FuseBackendOptions): Promise<FuseBackend> {
  if (name === 'own') {
    const { FuseServer } = await import('./server.js');
    return new FuseServer(options);
  }
  const { loadFuseNative } = await import('./fuse-native-library.js');
  const { FuseNativeServer } = await import('./fuse-native-server.js');
  return new FuseNativeServer(options, loadFuseNative());
}
