/** How long to wait before connecting again. */
import { RECONNECT_MAX_MS, RECONNECT_MIN_MS } from '../base/limits.js';

/**
 * Full jitter: anything from nothing to a bound that doubles with each attempt, so that the control devices of a
 * forwarder that was restarted do not all come back in the same moment.
 *
 * @param attempt 0 for the first wait @param random in [0, 1) @returns ms
 */
export function backoff(attempt: number, random: number): number {
  return random * Math.min(RECONNECT_MAX_MS, RECONNECT_MIN_MS * 2 ** attempt);
}
