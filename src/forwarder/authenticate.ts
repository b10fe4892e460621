/**
 * Who a control device is: a client certificate, a token, or, without either, only loopback unless
 * the configuration says `insecure: true`.
 *
 * A name that the configuration gives a token is never accepted without it, also not on loopback: otherwise any local user
 * could take the name and with it the rights.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { FwdfsError } from '../base/errors.js';

export interface Credentials {
  readonly name: string;
  readonly token?: string | undefined;
}

export interface PeerAddress {
  readonly address: string;
  readonly loopback: boolean;
  readonly unix: boolean;
  readonly certificateName: string | null;
}

export interface AuthenticationConfig {
  /** Name -> SHA-256 of its token, 64 hexadecimal digits. */
  readonly tokens: ReadonlyMap<string, string>;
  readonly insecure: boolean;
}

function tokenMatches(token: string, digest: string): boolean {
  const expected = Buffer.from(digest, 'hex');
  const actual = createHash('sha256').update(token).digest();
  return expected.length === actual.length && timingSafeEqual(actual, expected);
}

/** @returns the identity that the permission table knows @throws FwdfsError not-authenticated */
export function authenticate(config: AuthenticationConfig, hello: Credentials, peer: PeerAddress): string {
  if (peer.certificateName !== null) {
    if (peer.certificateName === hello.name) return hello.name;
    throw new FwdfsError('not-authenticated', `the certificate is ${peer.certificateName}'s, not ${hello.name}'s`);
  }
  const expected = config.tokens.get(hello.name);
  if (expected !== undefined) {
    if (hello.token !== undefined && tokenMatches(hello.token, expected)) return hello.name;
    throw new FwdfsError('not-authenticated', `${hello.name}: the token is missing or wrong`);
  }
  if (peer.loopback || peer.unix || config.insecure) return hello.name;
  throw new FwdfsError('not-authenticated', `${hello.name} at ${peer.address} is not known`);
}
