/**
 * Control device 200 (Fig. 1), control device 10 (Fig. 24): its links to the forwarders, its tables, and the root of the
 * file tree.
 *
 * Owns both tables, which are one for all forwarders, and every link. Knows nothing of FUSE beyond the contract of the tree.
 */
import { readFileSync } from 'node:fs';
import type { Changes } from '../base/changes.js';
import { errnoName, errnoOf, FwdfsError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { CommandFile } from '../fusefs/command-file.js';
import { type Content, TextFile } from '../fusefs/text-file.js';
import { type DirectoryNode, inoOf, type Node, staticDirectory } from '../fusefs/tree.js';
import { PROTOCOL_VERSION } from '../tunnel/messages.js';
import type { RemoteForwarder } from './config.js';
import { DrainCommands, ForwarderCommands, RuleCommands } from './commands.js';
import { ForwarderDirectory } from './forwarder-directory.js';
import { ForwarderLink } from './forwarder-link.js';
import type { OnDisconnect } from './on-disconnect.js';
import { parseSource } from './config.js';
import { NamespaceSockets } from './namespace-sockets.js';
import { VifCommands } from './vif-commands.js';
import { VIF_COLUMNS, VIF_RULES_COLUMNS, Vifs } from './vifs.js';
import { VipCommands } from './vip-commands.js';
import { VIP_COLUMNS, VIP_RECEPTION_COLUMNS, VIP_RULES_COLUMNS, VIP_TRANSMISSION_COLUMNS, Vips } from './vips.js';
import { RECEPTION_COLUMNS, ReceptionTable, tableText, TRANSMISSION_COLUMNS, TransmissionTable } from './tables.js';

/** The first line of a file. */
function readToken(file: string): string {
  try {
    return (readFileSync(file, 'utf8').split('\n')[0] ?? '').trim();
  } catch (error) {
    throw new FwdfsError('no-token', `${file}: ${errnoName(errnoOf(error))}`, { cause: error });
  }
}

export interface ControlDeviceOptions {
  readonly name: string;
  readonly version: string;
  readonly onDisconnect?: OnDisconnect;
  /** Share of new flows against those of other control devices; default: 1. */
  readonly weight?: number;
  /** Adds what the mount's options say for all forwarders to one that `.ctl` names by its URL alone. */
  readonly complete?: (source: RemoteForwarder) => RemoteForwarder;
  readonly log: Logger;
}

export class ControlDevice {
  readonly reception = new ReceptionTable();
  readonly transmission = new TransmissionTable();
  readonly vifs: Vifs;
  readonly vips: Vips;
  private readonly options: ControlDeviceOptions;
  private readonly links = new Map<string, ForwarderLink>();
  private readonly directories = new Map<string, ForwarderDirectory>();
  private readonly fixed: ReadonlyMap<string, Node>;
  readonly root: DirectoryNode;

  constructor(options: ControlDeviceOptions) {
    this.options = options;
    const { log, name: control } = options;
    const sockets = new NamespaceSockets(log);
    this.vifs = new Vifs({ control, reception: this.reception, sockets, log });
    this.vips = new Vips({ control, sockets, addresses: this.vifs.addresses, log });
    this.fixed = new Map<string, Node>([
      ['.tables', this.tables()],
      ['.ctl', new CommandFile(inoOf('/.ctl'), (command) => this.run(command))],
      ['.version', new TextFile(inoOf('/.version'), () => `fwdfs ${options.version}\nprotocol ${PROTOCOL_VERSION}\n`)],
    ]);
    this.root = {
      kind: 'directory',
      ino: inoOf('/'),
      mode: 0o755,
      lookup: (name) => {
        const node = this.directories.get(name) ?? this.fixed.get(name);
        if (node === undefined) throw new FwdfsError('no-such-forwarder', name);
        return node;
      },
      list: () =>
        [...this.directories, ...this.fixed].map(([name, node]) => ({
          name,
          directory: node.kind === 'directory',
          ino: node.ino,
        })),
    };
  }

  private tables(): DirectoryNode {
    const reception = (): string => tableText(RECEPTION_COLUMNS, this.reception.rows());
    const transmission = (): string => tableText(TRANSMISSION_COLUMNS, this.transmission.rows());
    const vipReception = async (): Promise<string> => tableText(VIP_RECEPTION_COLUMNS, await this.vips.receptionRows());
    const vipTransmission = async (): Promise<string> =>
      tableText(VIP_TRANSMISSION_COLUMNS, await this.vips.transmissionRows());
    const file = (name: string, content: Content, { changes }: { changes: Changes }): [string, Node] => [
      name,
      new TextFile(inoOf(`/.tables/${name}`), content, { changes }),
    ];
    return staticDirectory(
      '/.tables',
      new Map([
        file('reception', reception, this.reception),
        file('transmission', transmission, this.transmission),
        file('vif', () => tableText(VIF_COLUMNS, this.vifs.rows()), this.vifs),
        file('vif_rules', () => tableText(VIF_RULES_COLUMNS, this.vifs.ruleRows()), this.vifs),
        file('vip', () => tableText(VIP_COLUMNS, this.vips.rows()), this.vips),
        file('vip_rules', () => tableText(VIP_RULES_COLUMNS, this.vips.ruleRows()), this.vips),
        file('vip_reception', vipReception, this.vips),
        file('vip_transmission', vipTransmission, this.vips),
      ]),
    );
  }

  /** S201, S801: an administrator names a forwarder; its interfaces follow by themselves. */
  addForwarder(name: string, source: RemoteForwarder): ForwarderLink {
    if (this.links.has(name)) throw new FwdfsError('already-there', `forwarder ${name}`);
    const token = source.tokenFile === null ? source.token : readToken(source.tokenFile);
    const { tls } = source;
    const link = new ForwarderLink({
      name,
      url: source.url,
      ...(token === null ? {} : { token }),
      ...(tls === null
        ? {}
        : {
            tls: {
              ...(tls.cert === null ? {} : { cert: tls.cert }),
              ...(tls.key === null ? {} : { key: tls.key }),
              ...(tls.ca === null ? {} : { ca: tls.ca }),
            },
          }),
      control: this.options.name,
      reception: this.reception,
      transmission: this.transmission,
      ...(this.options.onDisconnect && { onDisconnect: this.options.onDisconnect }),
      ...(this.options.weight !== undefined && { weight: this.options.weight }),
      log: this.options.log,
    });
    this.links.set(name, link);
    this.vifs.addresses.follow(link, source.url);
    const commands = new ForwarderCommands({
      rule: new RuleCommands(link),
      vif: new VifCommands(link, this.vifs, this.options.log),
      vip: new VipCommands(link, this.vips, this.options.log),
      drain: new DrainCommands(link),
    });
    this.directories.set(name, new ForwarderDirectory(link, commands));
    return link;
  }

  async removeForwarder(name: string): Promise<void> {
    const link = this.links.get(name);
    if (link === undefined) throw new FwdfsError('no-such-forwarder', name);
    await this.vips.removeOf(link);
    await this.vifs.removeOf(link);
    this.vifs.addresses.forget(link);
    link.close('the forwarder was removed');
    this.links.delete(name);
    this.directories.delete(name);
  }

  /** Resolves when every forwarder was reached, or could not be at the first try. */
  async settled(): Promise<void> {
    await Promise.all([...this.links.values()].map((link) => link.settled));
  }

  /** `.ctl` of the root: forwarder add NAME=URL, forwarder remove NAME. */
  private async run(command: string): Promise<void> {
    const words = command.trim().split(/\s+/);
    if (words.length === 1 && words[0] === '') return;
    const [object, verb, what] = words;
    if (words.length !== 3 || object !== 'forwarder' || what === undefined) {
      throw new FwdfsError('bad-command', JSON.stringify(command));
    }
    if (verb === 'remove') await this.removeForwarder(what);
    else if (verb === 'add') {
      for (const [name, source] of parseSource(what).forwarders) {
        if (source.kind === 'remote') this.addForwarder(name, this.options.complete?.(source) ?? source);
      }
    } else throw new FwdfsError('bad-command', JSON.stringify(command));
  }

  /** Resolves when nothing of it is left in the kernel. */
  async close(): Promise<void> {
    await this.vips.close();
    await this.vifs.close();
    for (const link of this.links.values()) link.close();
  }
}
