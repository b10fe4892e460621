/** What a configuration file wants to be there: added as soon as it can be. */
import { describe, hasCode } from '../base/errors.js';
import { VIF_RETRY_MS } from '../base/limits.js';
import type { ForwarderLink } from './forwarder-link.js';

export interface Wish {
  readonly link: Pick<ForwarderLink, 'changes'>;
  readonly add: () => Promise<unknown>;
  /** The control device stops. */
  readonly isOver: () => boolean;
  /** Told why it can't be added, once for each reason; not that the forwarder or its interface is not there yet. */
  readonly tell: (reason: string) => void;
}

/** Tries now, whenever something about the forwarder's interfaces changes, and now and then: what is amiss here comes without a word. */
export function addWhenPossible({ link, add, isOver, tell }: Wish): void {
  let isTrying = false;
  let isMissed = false;
  let told = '';
  const attempt = async (): Promise<void> => {
    isMissed = isTrying;
    if (isTrying || isOver()) return;
    isTrying = true;
    try {
      await add();
      stop();
      clearInterval(timer);
    } catch (error) {
      const reason = describe(error);
      const isEarly = hasCode(error, 'not-connected', 'no-such-interface', 'no-such-vip') || reason === told;
      if (!isEarly) {
        told = reason;
        tell(reason);
      }
    }
    isTrying = false;
    if (isMissed) void attempt();
  };
  const timer = setInterval(() => void attempt(), VIF_RETRY_MS).unref();
  const stop = link.changes.interfaces.listen(() => void attempt());
  void attempt();
}
