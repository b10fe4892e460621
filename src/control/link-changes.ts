/** What programs can wait for in a forwarder's directory: which of its text files may read otherwise than before. */
import { Changes } from '../base/changes.js';

export class LinkChanges {
  /** `.state`, but for the round trip. */
  readonly state = new Changes();
  /** `.if`: interfaces came, went or have other attributes. */
  readonly interfaces = new Changes();
  private readonly tables = new Map<string, Changes>();

  /** A table of the forwarder. */
  table(name: string): Changes {
    let changes = this.tables.get(name);
    if (changes === undefined) {
      changes = new Changes();
      this.tables.set(name, changes);
    }
    return changes;
  }

  /** The connection came or went, and with it whatever the forwarder would have told of. */
  connection(): void {
    this.state.tell();
    this.interfaces.tell();
    for (const changes of this.tables.values()) changes.tell();
  }
}
