/**
 * control.yaml, or NAME=URL[,NAME=URL…] on the command line: which forwarders a control device mounts.
 *
 * The schema is the one place where the fields stand, with their defaults. Paths are relative to the file, or to the working
 * directory. Errors name file and line (src/sys/config-file.ts).
 */
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import { dirname, resolve } from 'node:path';
import { z } from 'zod';
import { describe, FwdfsError } from '../base/errors.js';
import { MAX_WEIGHT } from '../base/limits.js';
import { ANY_PROTOCOL, parseProtocolAddress, type ProtocolAddress } from '../packet/protocol-address.js';
import { deviceName, isDeviceName, loadYaml } from '../sys/config-file.js';
import { VIF_KINDS } from '../tunnel/messages.js';
import type { VifRequest } from './vifs.js';
import { vipRequest } from './vip-commands.js';
import type { VipRequest } from './vips.js';

/** PEM files, absolute paths; null: none. Certificate and key come together. */
export interface ClientTlsFiles {
  readonly cert: string | null;
  readonly key: string | null;
  /** Signs the forwarder's certificate; null: one of the authorities that Node knows. */
  readonly ca: string | null;
}

/** A forwarder at a URL. At most one of `token` and `tokenFile` is not null. */
export interface RemoteForwarder {
  readonly kind: 'remote';
  /** ws://, wss:// or ws+unix:/PATH, without a path of HTTP. */
  readonly url: string;
  readonly token: string | null;
  /** A file whose first line is the token, absolute path. */
  readonly tokenFile: string | null;
  readonly tls: ClientTlsFiles | null;
}

/** A forwarder that runs in this process. */
export interface LocalForwarder {
  readonly kind: 'local';
  /** Its forwarder.yaml, absolute path. */
  readonly file: string;
}

export type ForwarderSource = RemoteForwarder | LocalForwarder;

/** A virtual IF that is to be there whenever its interface is. */
export interface ConfiguredVif {
  readonly forwarder: string;
  readonly request: VifRequest;
}

/** A virtual IP address that is to be there whenever its forwarder is. */
export interface ConfiguredVip {
  readonly forwarder: string;
  readonly request: VipRequest;
}

export interface ControlConfig {
  /** Default: the host's name. */
  readonly name: string;
  /** Share of new flows against those of other control devices, 1 to MAX_WEIGHT. */
  readonly weight: number;
  readonly forwarders: ReadonlyMap<string, ForwarderSource>;
  readonly vifs: readonly ConfiguredVif[];
  readonly vips: readonly ConfiguredVip[];
}

const URL_FORM = 'expected ws://HOST[:PORT], wss://HOST[:PORT] or ws+unix:/PATH';
const URLS = /^(wss?:\/\/(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(:[1-9][0-9]{0,4})?\/?|ws\+unix:\/[^:,]+)$/;

function isForwarderUrl(text: string): boolean {
  return URLS.test(text) && (text.startsWith('ws+unix:') || URL.canParse(text));
}

const path = z.string().min(1, 'expected a path');

/** A protocol address, with ranges. */
function exposed(text: string, context: { addIssue(text: string): void }): ProtocolAddress {
  try {
    return parseProtocolAddress(text, { ranges: true });
  } catch (error) {
    context.addIssue(error instanceof FwdfsError ? error.what : describe(error));
    return ANY_PROTOCOL;
  }
}

function isVipPath(text: string): boolean {
  const [forwarder = '', address = '', ...more] = text.split('/');
  return forwarder !== '' && isIP(address) !== 0 && more.length === 0;
}

const WEIGHT_FORM = `expected a number from 1 to ${MAX_WEIGHT}`;

const SCHEMA = z.strictObject({
  name: deviceName.optional(),
  weight: z.int(WEIGHT_FORM).min(1, WEIGHT_FORM).max(MAX_WEIGHT, WEIGHT_FORM).default(1),
  forwarders: z
    .record(
      deviceName,
      z
        .strictObject({
          url: z.string().refine(isForwarderUrl, URL_FORM).optional(),
          token: z.string().min(1, 'expected a token').optional(),
          token_file: path.optional(),
          tls: z
            .strictObject({
              cert: path.nullable().default(null),
              key: path.nullable().default(null),
              ca: path.nullable().default(null),
            })
            .refine(({ cert, key }) => (cert === null) === (key === null), 'expected cert and key together')
            .optional(),
          local: path.optional(),
        })
        .refine(({ url, local }) => (url === undefined) !== (local === undefined), 'expected either url or local')
        .refine((one) => one.local === undefined || Object.keys(one).length === 1, 'expected nothing beside local')
        .refine(
          (one) => one.token === undefined || one.token_file === undefined,
          'expected one of token and token_file',
        ),
    )
    .default({}),
  vifs: z
    .array(
      z.strictObject({
        interface: z.string().regex(/^[^/]+\/[^/\s]+$/, 'expected FORWARDER/INTERFACE'),
        name: z.string().min(1, 'expected a name').optional(),
        kind: z.enum(VIF_KINDS, `expected ${VIF_KINDS.join(' or ')}`).optional(),
        netns: z.string().min(1, 'expected a name or a path').optional(),
        expose: z.array(z.string().transform(exposed)).optional(),
      }),
    )
    .default([]),
  vips: z
    .array(
      z
        .strictObject({
          address: z.string().refine(isVipPath, 'expected FORWARDER/ADDRESS'),
          sender: z.string().refine(isIP, 'expected an IPv4 or IPv6 address').optional(),
          expose: z.array(z.string().transform(exposed)).optional(),
        })
        .refine(
          ({ address, sender }) => sender === undefined || sender.includes(':') === address.includes(':'),
          'expected address and sender of one family',
        ),
    )
    .default([]),
});

/** @throws FwdfsError bad-config: `FILE:LINE: expected …` */
export function loadControlConfig(file: string): ControlConfig {
  const fields = loadYaml(file, SCHEMA);
  const absolute = (relative: string): string => resolve(dirname(file), relative);
  const orNull = (relative: string | null | undefined): string | null => (relative ? absolute(relative) : null);
  const forwarders = new Map<string, ForwarderSource>();
  for (const [name, { url, local, token, token_file, tls }] of Object.entries(fields.forwarders)) {
    if (local !== undefined) {
      forwarders.set(name, { kind: 'local', file: absolute(local) });
    } else if (url !== undefined) {
      forwarders.set(name, {
        kind: 'remote',
        url: canonical(url),
        token: token ?? null,
        tokenFile: orNull(token_file),
        tls: tls === undefined ? null : { cert: orNull(tls.cert), key: orNull(tls.key), ca: orNull(tls.ca) },
      });
    }
  }
  const vifs = fields.vifs.map(({ interface: path, name, kind, netns, expose }) => {
    const [forwarder = '', interfaceName = ''] = path.split('/');
    return {
      forwarder,
      request: {
        interface: interfaceName,
        name: name ?? null,
        kind: kind ?? null,
        netns: netns ?? '',
        expose: expose ?? null,
      },
    };
  });
  const vips = fields.vips.map(({ address: path, sender, expose }) => {
    const slash = path.indexOf('/');
    return {
      forwarder: path.slice(0, slash),
      request: vipRequest(path.slice(slash + 1), sender ?? null, expose ?? null),
    };
  });
  for (const [what, list] of Object.entries({ vifs, vips })) {
    const stranger = list.find(({ forwarder }) => !forwarders.has(forwarder));
    if (stranger === undefined) continue;
    throw new FwdfsError('bad-config', `${file}: ${what}: there is no forwarder ${stranger.forwarder}`);
  }
  return { name: fields.name ?? defaultControlName(), weight: fields.weight, forwarders, vifs, vips };
}

/** The short form, `NAME=URL[,NAME=URL…]`. @throws FwdfsError bad-source */
export function parseSource(text: string): ControlConfig {
  const forwarders = new Map<string, ForwarderSource>();
  for (const part of text.split(',')) {
    const equals = part.indexOf('=');
    const name = part.slice(0, Math.max(equals, 0));
    const url = part.slice(equals + 1);
    if (equals < 1 || !isDeviceName(name)) throw bad(part, 'expected NAME=URL');
    if (!isForwarderUrl(url)) throw bad(part, URL_FORM);
    if (forwarders.has(name)) throw bad(part, 'expected every name once');
    forwarders.set(name, { kind: 'remote', url: canonical(url), token: null, tokenFile: null, tls: null });
  }
  return { name: defaultControlName(), weight: 1, forwarders, vifs: [], vips: [] };
}

/** Whether a SOURCE is the short form rather than a file; a file of such a name is reached as ./NAME=…. */
export function isShortForm(source: string): boolean {
  const equals = source.indexOf('=');
  return equals > 0 && isDeviceName(source.slice(0, equals));
}

/** A file or the short form. @throws FwdfsError bad-config */
export function loadSource(source: string): ControlConfig {
  return isShortForm(source) ? parseSource(source) : loadControlConfig(source);
}

/** The host's name, with what a name may not have replaced. */
export function defaultControlName(host = hostname()): string {
  const name = host
    .replaceAll(/[^A-Za-z0-9_.-]/g, '-')
    .replace(/^\.+/, '')
    .slice(0, 64);
  return name === '' ? 'control' : name;
}

/** Channels append their own path. */
function canonical(url: string): string {
  return url.startsWith('ws+unix:') ? url : url.replace(/\/$/, '');
}

function bad(part: string, expected: string): FwdfsError {
  return new FwdfsError('bad-source', `${JSON.stringify(part)}: ${expected}`);
}
