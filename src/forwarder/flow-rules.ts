/**
 * The rules that the flows of one interface refer to, as small integers: the way back of each flow, and the socket rule
 * that it came through. A rule has its number while a flow refers to it, also when it is deleted meanwhile.
 *
 *     rule --Map--> number -> rule, how many flows, first flow that came through it
 *                   links of a flow: through, before, after       (a list per rule, so that to leave costs its own flows)
 *
 * Rules that were left stand by their virtual IF and protocol address too, for the one that takes their flows back.
 */
import { PagedRows } from '../base/paged-rows.js';
import type { Rule, VifEnd } from './distribution-table.js';
import { NONE } from './flow-rows.js';

const LINK_WORDS = 3;
const THROUGH = 0;
const BEFORE = 1;
const AFTER = 2;

export class FlowRules {
  private readonly numbers = new Map<Rule, number>();
  private readonly rules: (Rule | null)[] = [];
  private readonly counts: number[] = [];
  private readonly firsts: number[] = [];
  private readonly free: number[] = [];
  private readonly links = new PagedRows(LINK_WORDS);
  private readonly left = new Map<VifEnd, Map<string, Set<Rule>>>();

  of(number: number): Rule {
    return this.rules[number] as Rule;
  }

  /** Flows that refer to the rule. */
  count(rule: Rule): number {
    const number = this.numbers.get(rule);
    return number === undefined ? 0 : this.counts[number]!;
  }

  /** One more flow refers to the rule; `release` has to follow. */
  refer(rule: Rule): number {
    let number = this.numbers.get(rule);
    if (number === undefined) {
      number = this.free.pop() ?? this.rules.length;
      this.rules[number] = rule;
      this.counts[number] = 0;
      this.firsts[number] = NONE;
      this.numbers.set(rule, number);
    }
    this.counts[number]! += 1;
    return number;
  }

  release(number: number): void {
    this.counts[number]! -= 1;
    if (this.counts[number]! > 0) return;
    const rule = this.of(number);
    this.unmark(rule);
    this.numbers.delete(rule);
    this.rules[number] = null;
    this.free.push(number);
  }

  /** A flow, whose row is a new one or was unlinked, came through this rule, or through none. */
  link(row: number, through: Rule | null): void {
    const { links, firsts } = this;
    links.reserve(row);
    if (through === null) {
      links.set(row, THROUGH, NONE);
      return;
    }
    const number = this.refer(through);
    const after = firsts[number]!;
    links.set(row, THROUGH, number);
    links.set(row, BEFORE, NONE);
    links.set(row, AFTER, after);
    if (after !== NONE) links.set(after, BEFORE, row);
    firsts[number] = row;
  }

  unlink(row: number): void {
    const { links, firsts } = this;
    const number = links.get(row, THROUGH);
    if (number === NONE) return;
    const before = links.get(row, BEFORE);
    const after = links.get(row, AFTER);
    if (before === NONE) firsts[number] = after;
    else links.set(before, AFTER, after);
    if (after !== NONE) links.set(after, BEFORE, before);
    this.release(number);
  }

  through(row: number): Rule | null {
    const number = this.links.get(row, THROUGH);
    return number === NONE ? null : this.of(number);
  }

  /** The first flow that came through the rule, or NONE; the others by `after`. */
  first(rule: Rule): number {
    const number = this.numbers.get(rule);
    return number === undefined ? NONE : this.firsts[number]!;
  }

  after(row: number): number {
    return this.links.get(row, AFTER);
  }

  /** The rule, which has flows, is deleted. */
  mark(rule: Rule): void {
    if (rule.vif === null) return;
    let ofVif = this.left.get(rule.vif);
    if (ofVif === undefined) this.left.set(rule.vif, (ofVif = new Map<string, Set<Rule>>()));
    const rules = ofVif.get(rule.protocol.text);
    if (rules === undefined) ofVif.set(rule.protocol.text, new Set([rule]));
    else rules.add(rule);
  }

  private unmark(rule: Rule): void {
    if (this.left.size === 0 || rule.vif === null) return;
    const ofVif = this.left.get(rule.vif);
    const rules = ofVif?.get(rule.protocol.text);
    if (ofVif === undefined || rules === undefined || !rules.delete(rule) || rules.size > 0) return;
    ofVif.delete(rule.protocol.text);
    if (ofVif.size === 0) this.left.delete(rule.vif);
  }

  /** The rules that this one stands for again; they are no longer left. */
  takeLeft({ vif, protocol }: Rule): readonly Rule[] {
    const rules = vif === null ? undefined : this.left.get(vif)?.get(protocol.text);
    if (rules === undefined) return [];
    const taken = [...rules];
    for (const rule of taken) this.unmark(rule);
    return taken;
  }

  /** Gives the memory of an empty table back. */
  shrink(): void {
    this.links.clear();
  }
}
