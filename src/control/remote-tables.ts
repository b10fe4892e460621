/** A forwarder's tables, read over its control channel. */
import type { TunnelClient } from '../tunnel/client.js';
import type { Message } from '../tunnel/messages.js';

export class RemoteTables {
  private readonly client: Pick<TunnelClient, 'request'>;
  /** The last reading of each table. */
  private readonly reading = new Map<string, Promise<unknown>>();

  constructor(client: Pick<TunnelClient, 'request'>) {
    this.client = client;
  }

  /** Rows as of now; LinkChanges tells of the first change after them. One reading of a table at a time: it has parts. */
  read(table: string): Promise<Message<'table-rows'>> {
    const before = this.reading.get(table) ?? Promise.resolve();
    const rows = before.then(() => this.readParts(table));
    this.reading.set(
      table,
      rows.catch(() => undefined),
    );
    return rows;
  }

  private async readParts(table: string): Promise<Message<'table-rows'>> {
    const { columns, rows, next } = await this.client.request('table-request', { table, watch: true });
    for (let from = next; from !== undefined;) {
      const part = await this.client.request('table-request', { table, from });
      rows.push(...part.rows);
      from = part.next;
    }
    return { columns, rows };
  }

  async statistics(interfaceName: string): Promise<Message<'table-rows'>> {
    return this.client.request('table-request', { table: 'statistics', interface: interfaceName });
  }
}
