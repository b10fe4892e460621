/** Time that passes only when a test says so. */
import type { Cancel, Timers } from '../../src/tunnel/timers.js';

interface Timer {
  at: number;
  every: number;
  run: () => void;
}

export class FakeTimers implements Timers {
  private time = 0;
  private readonly timers = new Set<Timer>();

  now(): number {
    return this.time;
  }

  after(ms: number, run: () => void): Cancel {
    return this.start({ at: this.time + ms, every: 0, run });
  }

  every(ms: number, run: () => void): Cancel {
    return this.start({ at: this.time + ms, every: ms, run });
  }

  /** Timers that are running; 0 when everything was cancelled. */
  get running(): number {
    return this.timers.size;
  }

  /** Runs what is due within the next `ms`, in order of time, each at its time. */
  advance(ms: number): void {
    const end = this.time + ms;
    for (let due = this.next(end); due !== undefined; due = this.next(end)) {
      this.time = due.at;
      if (due.every > 0) due.at += due.every;
      else this.timers.delete(due);
      due.run();
    }
    this.time = end;
  }

  /** Time passes in which nothing runs: what was due is late. */
  stall(ms: number): void {
    this.time += ms;
    for (const timer of this.timers) timer.at = Math.max(timer.at, this.time);
  }

  private start(timer: Timer): Cancel {
    this.timers.add(timer);
    return () => this.timers.delete(timer);
  }

  private next(end: number): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of this.timers) {
      if (timer.at <= end && (first === undefined || timer.at < first.at)) first = timer;
    }
    return first;
  }
}
