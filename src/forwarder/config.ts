/**
 * forwarder.yaml: what a forwarder is told.
 *
 * The schema is the one place where its fields stand, with their defaults; the types follow from it. Paths are relative to
 * the file. Errors name file and line (src/sys/config-file.ts).
 */
import { dirname, resolve } from 'node:path';
import { z } from 'zod';
import { FwdfsError } from '../base/errors.js';
import { HEARTBEAT_MS, MAX_HEARTBEAT_MS, MIN_HEARTBEAT_MS } from '../base/limits.js';
import { ANY_PROTOCOL, parseProtocolAddress } from '../packet/protocol-address.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import { deviceName, isDeviceName, loadYaml } from '../sys/config-file.js';
import type { Permission } from './permission-table.js';
import { RIGHTS } from '../tunnel/messages.js';
import { kindOfControl } from './permission-table.js';

/** Where a forwarder listens. */
export type ListenAddress =
  | {
      readonly kind: 'tcp';
      readonly secure: boolean;
      readonly host: string;
      readonly port: number;
      readonly url: string;
    }
  | { readonly kind: 'unix'; readonly path: string; readonly url: string };

/** PEM files, absolute paths. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  /** Signs the certificates of control devices; null: they have none. */
  readonly ca: string | null;
}

export interface InterfaceConfig {
  /** What happens to received packets that no rule takes. Default `discard`. */
  readonly unmatched: 'discard' | 'host';
  /** What the host's own kernel gets all the same. Default nothing. */
  readonly host: readonly ProtocolAddress[];
}

export interface ForwarderConfig {
  readonly name: string;
  readonly listen: readonly ListenAddress[];
  readonly tls: TlsFiles | null;
  /** Name of a control device -> SHA-256 of its token, 64 lower case hex digits. */
  readonly tokens: ReadonlyMap<string, string>;
  /** Whether anyone is accepted, also on a plain address that is not loopback. Default false. */
  readonly insecure: boolean;
  /** How often control devices that are given flows are asked whether they are there, in ms. Default HEARTBEAT_MS. */
  readonly heartbeat: number;
  /** The interfaces that are offered; `*` stands for all that are not named. See `interfaceConfig`. */
  readonly interfaces: ReadonlyMap<string, InterfaceConfig>;
  readonly permissions: readonly Permission[];
}

const protocolAddress = z.string().transform((text, context): ProtocolAddress => {
  try {
    return parseProtocolAddress(text, { ranges: true });
  } catch (error) {
    const why = error instanceof FwdfsError ? error.what : String(error);
    context.addIssue({ code: 'custom', message: `expected a protocol address, ${why}` });
    return z.NEVER;
  }
});

const LISTEN = 'expected ws://HOST:PORT, wss://HOST:PORT or ws+unix:/PATH';
const TCP_URL = /^(wss?):\/\/(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+|\*):(0|[1-9][0-9]{0,4})\/?$/;
const UNIX_URL = /^ws\+unix:(\/[^:]+)$/;

/** @returns null for anything else than LISTEN says; host `*` is any address, port 0 any free port */
export function parseListenAddress(url: string): ListenAddress | null {
  const path = UNIX_URL.exec(url)?.[1];
  if (path !== undefined) return { kind: 'unix', path, url };
  const [, scheme, host = '', port] = TCP_URL.exec(url) ?? [];
  if (scheme === undefined || Number(port) > 0xffff) return null;
  const bare = host === '*' ? '::' : host.replace(/^\[|\]$/g, '');
  const canonical = `${scheme}://${bare.includes(':') ? `[${bare}]` : bare}:${port}`;
  return { kind: 'tcp', secure: scheme === 'wss', host: bare, port: Number(port), url: canonical };
}

const listenAddress = z.string(LISTEN).transform((url, context): ListenAddress => {
  const address = parseListenAddress(url);
  if (address !== null) return address;
  context.addIssue({ code: 'custom', message: LISTEN });
  return z.NEVER;
});

const listen = z.preprocess(
  (value) => (typeof value === 'string' ? [value] : value),
  z.array(listenAddress, `${LISTEN}, or a list of them`).min(1, 'expected at least one'),
);

const interfaceName = z
  .string()
  .regex(/^(?!\.{1,2}$)[^/:\s"\\*]{1,15}$|^\*$/, 'expected the name of an interface (at most 15 characters), or "*"');

const INTERFACE_FIELDS = z
  .strictObject({
    unmatched: z.enum(['discard', 'host'], 'expected discard or host').default('discard'),
    host: z.array(protocolAddress).default([]),
  })
  .nullable()
  .transform((value): InterfaceConfig => value ?? { unmatched: 'discard', host: [] });

const control = z.string().refine((text) => {
  const kind = kindOfControl(text);
  // Nothing asks for peer credentials yet, so a line for a uid could only match nobody.
  return kind === 'name' ? isDeviceName(text) : kind !== null && kind !== 'uid';
}, 'expected the name of a control device, an IP address or prefix, or "*"');

const permission = z.strictObject({
  control,
  interface: interfaceName,
  rights: z.array(z.enum(RIGHTS, `expected one of ${RIGHTS.join(', ')}`)),
  protocols: z.array(protocolAddress).default([ANY_PROTOCOL]),
});

const token = z
  .string()
  .regex(/^sha256:[0-9a-fA-F]{64}$/, 'expected sha256: and 64 hex digits')
  .transform((text) => text.slice('sha256:'.length).toLowerCase());

const HEARTBEAT = `expected milliseconds, ${MIN_HEARTBEAT_MS} to ${MAX_HEARTBEAT_MS}`;

const path = z.string().min(1, 'expected a path');

const SCHEMA = z
  .strictObject({
    name: deviceName,
    listen,
    tls: z
      .strictObject({ cert: path, key: path, ca: path.nullable().default(null) })
      .nullable()
      .default(null),
    tokens: z.record(deviceName, token).default({}),
    insecure: z.boolean().default(false),
    heartbeat: z.int(HEARTBEAT).min(MIN_HEARTBEAT_MS, HEARTBEAT).max(MAX_HEARTBEAT_MS, HEARTBEAT).default(HEARTBEAT_MS),
    interfaces: z.record(interfaceName, INTERFACE_FIELDS).default({}),
    permissions: z.array(permission).default([]),
  })
  .refine(({ listen: at, tls }) => tls !== null || !at.some((one) => one.kind === 'tcp' && one.secure), {
    path: ['listen'],
    message: 'expected tls: { cert, key } in this file, for wss://',
  });

/** @throws FwdfsError bad-config: `FILE:LINE: expected …` */
export function loadForwarderConfig(file: string): ForwarderConfig {
  const fields = loadYaml(file, SCHEMA);
  const absolute = (relative: string): string => resolve(dirname(file), relative);
  const { tls } = fields;
  return {
    ...fields,
    tls: tls && { cert: absolute(tls.cert), key: absolute(tls.key), ca: tls.ca === null ? null : absolute(tls.ca) },
    tokens: new Map(Object.entries(fields.tokens)),
    interfaces: new Map(Object.entries(fields.interfaces)),
  };
}

/**
 * What the configuration says of an interface; null: it is not offered. The loopback interface under `*` is always left to
 * the host: a forwarder that discards there cuts the machine off from itself.
 */
export function interfaceConfig(config: ForwarderConfig, name: string): InterfaceConfig | null {
  const named = name === '*' ? undefined : config.interfaces.get(name);
  if (named !== undefined) return named;
  const rest = config.interfaces.get('*') ?? null;
  return rest !== null && name === 'lo' ? { ...rest, unmatched: 'host' } : rest;
}
