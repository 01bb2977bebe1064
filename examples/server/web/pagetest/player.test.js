import assert from 'node:assert/strict';
import test from 'node:test';
import { lines } from '../page/lines.js';
import { Player } from '../page/player.js';

// playing returns a player with frames at these times, and its clock.
function playing(...times) {
  const clock = { now: 1000 };
  const player = new Player(() => clock.now);
  for (const [i, time] of times.entries()) player.add(i, time);
  return { player, clock };
}

test('frames come in their own time', () => {
  const { player, clock } = playing(5000, 5400, 7000);
  player.complete();
  assert.deepEqual(player.take(), { due: [0], kind: 'playing', at: 0, all: 2000 });
  clock.now += 399;
  assert.deepEqual(player.take().due, []);
  clock.now += 1;
  assert.deepEqual(player.take(), { due: [1], kind: 'playing', at: 400, all: 2000 });
  clock.now += 60_000;
  assert.deepEqual(player.take(), { due: [2], kind: 'ended', at: 2000, all: 2000 });
  clock.now += 60_000;
  assert.deepEqual(player.take(), { due: [], kind: 'ended', at: 2000, all: 2000 });
});

test('faster, and a change of speed does not jump', () => {
  const { player, clock } = playing(0, 10_000, 20_000, 40_000);
  player.take();
  clock.now += 5000;
  player.speed = 4; // at 5 s
  clock.now += 1250;
  assert.deepEqual(player.take(), { due: [1], kind: 'playing', at: 10_000, all: 40_000 });
  player.speed = 16;
  clock.now += 625;
  assert.deepEqual(player.take().due, [2]);
});

test('a pause stands still', () => {
  const { player, clock } = playing(0, 1000);
  player.take();
  clock.now += 500;
  player.paused = true;
  clock.now += 60_000;
  assert.deepEqual(player.take(), { due: [], kind: 'paused', at: 500, all: 1000 });
  player.paused = false;
  clock.now += 499;
  assert.deepEqual(player.take().due, []);
  clock.now += 1;
  assert.deepEqual(player.take().due, [1]);
});

test('all at once comes in steps, so that the page goes on answering', () => {
  const { player } = playing(...Array.from({ length: 12_000 }, (_, i) => i * 1000));
  player.complete();
  player.speed = Infinity;
  const sizes = [0, 0, 0, 0].map(() => player.take().due.length);
  assert.deepEqual(sizes, [5000, 5000, 2000, 0]);
  assert.equal(player.take().kind, 'ended');
  player.restart();
  assert.equal(player.take().due.length, 5000);
});

test('back from all at once, it goes on from there', () => {
  const { player, clock } = playing(...Array.from({ length: 6000 }, (_, i) => i * 1000));
  player.speed = Infinity;
  assert.equal(player.take().due.at(-1), 4999);
  player.speed = 1;
  assert.deepEqual(player.take().due, []);
  clock.now += 1000;
  assert.deepEqual(player.take().due, [5000]);
});

test('what is not here yet is waited for', () => {
  const { player, clock } = playing(0, 1000);
  assert.equal(player.take().kind, 'playing');
  clock.now += 9000;
  assert.deepEqual(player.take(), { due: [1], kind: 'loading', at: 1000, all: 1000 });
  clock.now += 9000;
  player.take(); // the page looks again and again
  player.add(2, 3000);
  assert.deepEqual(player.take().due, []);
  clock.now += 2000;
  assert.deepEqual(player.take().due, [2]);
  player.fail();
  assert.equal(player.take().kind, 'failed');
});

test('an empty life, and one that never comes', () => {
  const { player } = playing();
  assert.deepEqual(player.take(), { due: [], kind: 'loading', at: 0, all: 0 });
  player.fail();
  assert.equal(player.take().kind, 'failed');
  player.complete();
  assert.equal(player.take().kind, 'ended');
});

test('times that are missing or go back do no harm', () => {
  const { player, clock } = playing(null, 5000, 4000, null, 6000);
  player.complete();
  assert.equal(player.length, 6000); // from the epoch: the first has no time
  const other = playing(5000, 4000, null, 6000);
  other.player.complete();
  assert.deepEqual(other.player.take(), { due: [0, 1, 2], kind: 'playing', at: 0, all: 1000 });
  other.clock.now += 1000;
  assert.deepEqual(other.player.take().due, [3]);
  clock.now += 1;
});

test('from the beginning, a pause is over', () => {
  const { player, clock } = playing(0, 1000);
  clock.now += 5000;
  player.take();
  player.paused = true;
  player.restart();
  assert.deepEqual(player.take(), { due: [0], kind: 'playing', at: 0, all: 1000 });
});

test('lines are cut wherever the pieces end', async () => {
  const bytes = new TextEncoder().encode('{"a":"é"}\n{"b":1}\nrest');
  for (let size = 1; size <= bytes.length; size += 1) {
    const body = new ReadableStream({
      start(controller) {
        for (let i = 0; i < bytes.length; i += size) controller.enqueue(bytes.slice(i, i + size));
        controller.close();
      },
    });
    const got = [];
    for await (const line of lines(body)) got.push(line);
    assert.deepEqual(got, ['{"a":"é"}', '{"b":1}', 'rest'], `pieces of ${size}`);
  }
});
