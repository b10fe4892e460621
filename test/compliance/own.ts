/** The compliance cases on our own FUSE server, which can do everything. */
import t from 'tap';
import { comply } from '../support/compliance/case.js';
import { TOPICS } from '../support/compliance/topics.js';

/** Longer than the runner's limit for a file: these are all cases. */
t.setTimeout(480_000);
for (const topic of TOPICS) comply({ name: 'own backend', lacks: [] }, topic);
