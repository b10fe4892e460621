/** The list of all compliance cases, in the order in which they are run. */
import type { Topic } from './case.js';
import { framing } from './framing.js';
import { interfaces } from './interfaces.js';
import { names } from './names.js';
import { plain } from './plain.js';
import { programs } from './programs.js';
import { reading } from './reading.js';
import { writing } from './writing.js';

export const TOPICS: readonly Topic[] = [reading, writing, framing, names, plain, interfaces, programs];
