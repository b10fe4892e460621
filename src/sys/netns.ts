/**
 * Other network namespaces: a step made there by the main thread, and back before anything else runs.
 *
 * Sockets, and files of /proc/net, belong for their whole life to the namespace in which they were opened.
 */
import { CLONE_NEWNET, must, O, sys } from './libc.js';

const NAMED_FOLDER = '/run/netns';

/**
 * Runs `step` with this thread in the network namespace.
 *
 * @param netns a name of ip-netns(8) or a path; '' is the process's own
 * @throws SystemError where there is none, or what `step` throws
 */
export function inNetns<T>(netns: string, step: () => T): T {
  if (netns === '') return step();
  const path = netns.includes('/') ? netns : `${NAMED_FOLDER}/${netns}`;
  const home = must('open', sys.open('/proc/thread-self/ns/net', O.RDONLY | O.CLOEXEC));
  try {
    const there = must('open', sys.open(path, O.RDONLY | O.CLOEXEC), path);
    try {
      must('setns', sys.setns(there, CLONE_NEWNET), path);
    } finally {
      sys.close(there);
    }
    try {
      return step();
    } finally {
      must('setns', sys.setns(home, CLONE_NEWNET), 'back');
    }
  } finally {
    sys.close(home);
  }
}
