/** The compliance cases on fuse-native: what it lacks is named by the cases that it can't do. */
import t from 'tap';
import { type Lack, LACKS } from '../../src/fusefs/fuse-native-lacks.js';
import { comply } from '../support/compliance/case.js';
import { TOPICS } from '../support/compliance/topics.js';
import { fuseNativeOnly } from '../support/fuse-mount.js';

const backend = {
  name: 'fuse-native',
  lacks: Object.keys(LACKS) as Lack[],
  mountOptions: 'fuse_backend=fuse-native',
  ...fuseNativeOnly,
};

t.setTimeout(480_000);
for (const topic of TOPICS) comply(backend, topic);
