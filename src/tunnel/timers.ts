/**
 * The clock and the timers of this room, injected so that tests pass time by hand. Every timer that is started is
 * cancelled by whoever started it, at the latest in its close(); none is unref'd.
 */

/** Ends a timer; harmless when it already fired. */
export type Cancel = () => void;

export interface Timers {
  /** Milliseconds of a clock that never goes back, with fractions. */
  now(): number;
  after(ms: number, run: () => void): Cancel;
  every(ms: number, run: () => void): Cancel;
}

export const realTimers: Timers = {
  now: () => performance.now(),
  after(ms, run) {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
  every(ms, run) {
    const timer = setInterval(run, ms);
    return () => clearInterval(timer);
  },
};
