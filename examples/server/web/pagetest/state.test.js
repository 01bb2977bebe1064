import assert from 'node:assert/strict';
import test from 'node:test';
import { reduce, unborn } from '../page/state.js';

const say = (text, more = {}) => ({
  text,
  prompt: null,
  memory: null,
  restarting: false,
  restarts: null,
  time: 1,
  ...more,
});
const live = (...messages) => ({ type: 'live', messages });
const kept = (...messages) => ({ type: 'history', messages });
const full = { percent: 99, available: 1, total: 100 };
const old = { prompt: 'p', memory: full, restarts: 3, began: 7, ended: null };

test('live appends, all of its messages', () => {
  const got = reduce(old, live(say('a'), say('b', { prompt: 'q' })));
  assert.deepEqual(got, { state: { ...old, prompt: 'q' }, cleared: false, reborn: false, text: 'ab' });
});

test('history replaces everything', () => {
  const got = reduce(old, kept(say('a', { restarts: 1 }), say('b')));
  assert.deepEqual(got, { state: { ...unborn, restarts: 1 }, cleared: true, reborn: false, text: 'ab' });
});

test('a visitor who comes late sees what was said before', () => {
  const state = say('', { prompt: 'q', memory: full, restarts: 5 });
  const got = reduce(unborn, { ...kept(say('a')), state });
  assert.deepEqual(got, {
    state: { ...unborn, prompt: 'q', memory: full, restarts: 5 },
    cleared: true,
    reborn: false,
    text: 'a',
  });
  const some = { ...kept(say('a', { prompt: 'p', restarts: 6 })), state: say('', { memory: full }) };
  assert.deepEqual(reduce(old, some).state, { ...unborn, prompt: 'p', memory: full, restarts: 6 });
});

test('an empty prompt is one, an absent prompt is none', () => {
  assert.equal(reduce(old, live(say('', { prompt: '' }))).state.prompt, '');
  assert.equal(reduce(old, live(say(''))).state.prompt, 'p');
});

test('a restart ends a life: its text, prompt and memory', () => {
  const got = reduce(old, live(say('last words'), say('first', { restarting: true, restarts: 9, time: 8 }), say(' word')));
  assert.deepEqual(got, {
    state: { prompt: '', memory: null, restarts: 9, began: 8, ended: { restarts: 3, percent: 99 } },
    cleared: true,
    reborn: true,
    text: 'first word',
  });
});

test('an end is remembered with what was known of the life', () => {
  const got = reduce(unborn, live(say('', { restarting: true })));
  assert.deepEqual(got.state.ended, { restarts: null, percent: null });
});

test('a restart that is not counted counts as one', () => {
  assert.equal(reduce(old, live(say('', { restarting: true }))).state.restarts, 4);
  assert.equal(reduce(unborn, live(say('', { restarting: true }))).state.restarts, null);
});

test('a restart in the history was not witnessed', () => {
  const got = reduce(old, kept(say('', { restarting: true, restarts: 5 }), say('x')));
  assert.equal(got.reborn, false);
  assert.equal(got.state.began, 1);
  assert.equal(got.state.ended, null, 'nor was the end before it');
  assert.equal(got.text, 'x');
});

test('the state before is left as it was', () => {
  const before = structuredClone(old);
  reduce(old, live(say('x', { restarting: true, prompt: 'n' })));
  assert.deepEqual(old, before);
});

test('an empty frame', () => {
  assert.deepEqual(reduce(old, live()), { state: old, cleared: false, reborn: false, text: '' });
});
