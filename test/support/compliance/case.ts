/**
 * What a mount owes to those who use it, as cases: one sentence each, run from children against a real mount. Every backend
 * runs the same list (`comply`); one that can't do what a case needs has the case skipped with what it lacks in the text.
 */
import t, { type Test } from 'tap';
import type { Lack } from '../../../src/fusefs/fuse-native-lacks.js';
import { type LabOptions, until } from '../lab.js';
import { withoutRoot } from '../netns.js';
import { Scene } from './scene.js';

export interface Case {
  /** A sentence about what a user sees. */
  readonly title: string;
  /** What some backend lacks, and why the case can't be shown there. */
  readonly needs?: readonly Lack[];
  readonly run: (scene: Scene, t: Test) => Promise<void>;
}

export interface Topic {
  readonly title: string;
  readonly options?: LabOptions;
  /** What the topic's cases share, made after the lab. */
  readonly prepare?: (scene: Scene) => Promise<void>;
  readonly cases: readonly Case[];
}

export interface Backend {
  readonly name: string;
  readonly lacks: readonly Lack[];
  /** Mount options that choose it. */
  readonly mountOptions?: string;
  /** Why it can't be tried here. */
  readonly skip?: string | false;
}

const CASE_TIMEOUT_MS = 60_000;
const TOPIC_TIMEOUT_MS = 400_000;

/** Runs the cases of a topic one after another on one mount. Each leaves no rule and no name behind. */
export function comply(backend: Backend, topic: Topic): void {
  const title = `${topic.title} (${backend.name})`;
  t.test(title, { skip: withoutRoot || (backend.skip ?? false), timeout: TOPIC_TIMEOUT_MS }, async (t) => {
    const { mountOptions } = backend;
    const scene = await Scene.start({ ...topic.options, ...(mountOptions === undefined ? {} : { mountOptions }) });
    t.teardown(() => scene.stop());
    await topic.prepare?.(scene);
    const before = await scene.traces();
    for (const { title, needs = [], run } of topic.cases) {
      const lacks = needs.filter((need) => backend.lacks.includes(need));
      const skip = lacks.length > 0 && `${backend.name} lacks ${lacks.join(', ')}`;
      await t.test(title, { skip, timeout: CASE_TIMEOUT_MS }, async (t) => {
        try {
          await run(scene, t);
        } finally {
          await scene.endPrograms();
        }
        let after = '';
        // Who closes does not wait for the release.
        await until(async () => (after = await scene.traces()) === before).catch(() => undefined);
        t.equal(after, before, 'no rule and no name is left');
      });
    }
  });
}
