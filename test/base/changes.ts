import t from 'tap';
import { Changes } from '../../src/base/changes.js';

t.test('everyone who listens is told of every change, until they take it back', (t) => {
  const changes = new Changes();
  const told: string[] = [];
  const first = changes.listen(() => told.push('first'));
  const second = changes.listen(() => told.push('second'));
  changes.tell();
  t.same(told, ['first', 'second']);
  first();
  first();
  changes.tell();
  t.same(told, ['first', 'second', 'second']);
  second();
  changes.tell();
  t.equal(told.length, 3);
  t.equal(changes.listenerCount, 0);
  t.end();
});

t.test('a listener may take itself back while it is told', (t) => {
  const changes = new Changes();
  let told = 0;
  const forget = changes.listen(() => {
    told += 1;
    forget();
  });
  changes.listen(() => (told += 10));
  changes.tell();
  changes.tell();
  t.equal(told, 21);
  t.end();
});
