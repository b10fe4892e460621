/**
 * Network namespaces: a step of this thread in another one.
 *
 *     home --setns--> the other one: sockets, devices, sysctls and children that are made now belong to it --setns--> home
 *
 * Only what happens on this thread while the step runs is inside: a socket stays in its namespace for its whole life, but
 * a file that Node's thread pool opens is looked up outside. /proc/sys/net shows the namespace of the thread that opens.
 */
import { CLONE_NEWNET, must, O, sys } from './libc.js';

const NAMED_IN = '/run/netns';
const OWN = '/proc/thread-self/ns/net';

/** @param netns a path, or a name as ip-netns(8) has them */
export function netnsPath(netns: string): string {
  return netns.includes('/') ? netns : `${NAMED_IN}/${netns}`;
}

/**
 * Runs `step` with this thread in the network namespace; '' is the process's own. Synchronous: nothing else runs meanwhile,
 * so a step that is an async function is inside up to its first await only.
 *
 * @throws SystemError ENOENT without such a namespace, EPERM without CAP_SYS_ADMIN
 */
export function inNetns<T>(netns: string, step: () => T): T {
  if (netns === '') return step();
  const home = must('open', sys.open(OWN, O.RDONLY | O.CLOEXEC), OWN);
  try {
    const path = netnsPath(netns);
    const there = must('open', sys.open(path, O.RDONLY | O.CLOEXEC), path);
    const moved = sys.setns(there, CLONE_NEWNET);
    sys.close(there);
    must('setns', moved, path);
    try {
      return step();
    } finally {
      // The namespace that it came from is held open, so there is nothing that could fail.
      must('setns', sys.setns(home, CLONE_NEWNET), OWN);
    }
  } finally {
    sys.close(home);
  }
}
