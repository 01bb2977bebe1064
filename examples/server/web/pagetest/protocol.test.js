import assert from 'node:assert/strict';
import test from 'node:test';
import { parse } from '../page/protocol.js';

test('what is no frame of messages is ignored', () => {
  for (const data of [
    '',
    'null',
    '7',
    '[]',
    '{',
    '{}',
    '"live"',
    '{"type":"live"}',
    '{"type":"live","messages":{}}',
    '{"type":"toString","messages":[]}',
    '{"type":"later","messages":[{"text":"a"}]}',
    '{"status":"authenticated"}',
    '{"error":"Invalid JSON"}',
    '{"ack":"1"}',
    new ArrayBuffer(2), // a binary frame
    undefined,
  ]) {
    assert.equal(parse(data), null, String(data));
  }
});

const only = (message) => parse(JSON.stringify({ type: 'live', messages: [message] })).messages[0];

test('a message with everything', () => {
  const m = {
    text: 'a',
    prompt: 'p',
    memory: { available_mb: 1, percent_used: 2, total_mb: 3 },
    status: { is_restarting: true, num_restarts: 4 },
    timestamp: 5,
  };
  assert.deepEqual(only(m), {
    text: 'a',
    prompt: 'p',
    memory: { percent: 2, available: 1, total: 3 },
    restarting: true,
    restarts: 4,
    time: 5,
  });
});

test('how many watch', () => {
  const of = (watching) => parse(JSON.stringify({ type: 'live', messages: [], watching })).watching;
  assert.equal(of(12), 12);
  for (const none of [undefined, null, 0, -1, 1.5, '12']) assert.equal(of(none), null);
});

test('the state of a frame', () => {
  const of = (state) => parse(JSON.stringify({ type: 'history', messages: [], state })).state;
  assert.deepEqual(of({ prompt: 'p', status: { num_restarts: 4 }, memory: 7 }), {
    text: '',
    prompt: 'p',
    memory: null,
    restarting: false,
    restarts: 4,
    time: null,
  });
  for (const none of [undefined, null, 'p', []]) assert.equal(of(none), null);
});

test('a field that breaks its rule is absent, the rest stays', () => {
  const rest = { text: 't', prompt: null, memory: null, restarting: false, restarts: null, time: null };
  for (const broken of [
    { prompt: 7 },
    { memory: null },
    { memory: [] },
    { memory: { available_mb: 1, percent_used: '2', total_mb: 3 } },
    { memory: { available_mb: 1, percent_used: 2 } },
    { status: null },
    { status: { is_restarting: 'true', num_restarts: -1 } },
    { status: { num_restarts: 1.5 } },
    { status: { num_restarts: 1e300 } },
    { timestamp: '1' },
    { timestamp: 1e300 }, // no Date
  ]) {
    assert.deepEqual(only({ text: 't', ...broken }), rest, JSON.stringify(broken));
  }
  assert.deepEqual(only({ text: {} }), { ...rest, text: '' });
});

test('what is no message is left out', () => {
  assert.deepEqual(parse('{"type":"live","messages":[null,1,"a",[],{"text":"b"}]}').messages.map((m) => m.text), ['b']);
});

test('figures outside their range are brought in', () => {
  const m = only({ text: '', memory: { available_mb: -5, percent_used: 250, total_mb: 1 } });
  assert.deepEqual(m.memory, { percent: 100, available: 0, total: 1 });
});

test('a position is opaque text', () => {
  const pos = (p) => parse(JSON.stringify({ type: 'live', messages: [], pos: p })).pos;
  assert.equal(pos('a/b=='), 'a/b==');
  for (const not of [undefined, null, 7, '', {}]) assert.equal(pos(not), null);
});
