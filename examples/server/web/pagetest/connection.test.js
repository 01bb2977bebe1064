import assert from 'node:assert/strict';
import test from 'node:test';
import { socketURL } from '../page/connection.js';
import { eventsURL } from '../page/events.js';
import { world } from './world.js';

test('the socket is beside the page, with its security', () => {
  for (const [page, room, pos, want] of [
    ['http://h:3000/', null, null, 'ws://h:3000/ws'],
    ['https://h/#x', null, null, 'wss://h/ws'],
    ['https://h/art/?a=b', null, null, 'wss://h/art/ws'],
    ['https://h/', null, 'a+/=&', 'wss://h/ws?since=a%2B%2F%3D%26'],
    ['https://h/r/pi-1/', 'pi-1', null, 'wss://h/ws?room=pi-1'],
    ['https://h/art/r/pi_2/?wall', 'pi_2', 'a+', 'wss://h/art/ws?room=pi_2&since=a%2B'],
  ]) {
    assert.equal(socketURL(page, room, pos), want);
    assert.equal(eventsURL(page, room, pos), want.replace(/^ws/, 'http').replace('/ws', '/events'));
  }
});

test('connecting, listening, live, quiet, live', () => {
  const w = world();
  assert.equal(w.kind(), 'connecting');
  w.sockets[0].open();
  assert.equal(w.kind(), 'listening');
  w.sockets[0].say('history');
  assert.equal(w.kind(), 'listening', 'history is no sign of a publisher');
  w.sockets[0].say('live');
  assert.equal(w.kind(), 'live');
  w.pass(14_000);
  assert.equal(w.kind(), 'live');
  w.pass(90_000);
  assert.deepEqual(w.states.at(-1), { kind: 'quiet', wait: 0, quietFor: 104_000 });
  w.sockets[0].say('live');
  assert.equal(w.kind(), 'live');
});

test('a lost connection is taken up again, from where it was', async () => {
  const w = world();
  w.sockets[0].open();
  w.sockets[0].say('live');
  w.position = 'p1';
  await w.fail();
  assert.equal(w.kind(), 'lost');
  assert.ok(w.states.at(-1).wait >= 500 && w.states.at(-1).wait <= 1000);
  assert.equal(w.probes, 0, 'nothing to ask: it was let in before');
  w.pass(1000);
  assert.equal(w.kind(), 'connecting');
  assert.equal(w.sockets[1].url, 'wss://host.example/ws?since=p1');
  w.sockets[1].open();
  assert.equal(w.kind(), 'listening', 'the old connection said nothing about this one');
});

test('the server says that it goes', async () => {
  const w = world();
  w.sockets[0].open();
  await w.fail(1001);
  assert.equal(w.kind(), 'restarting');
  assert.ok(w.states.at(-1).wait >= 2000, 'it needs a moment, and everybody asks at once');
});

test('the server says when it wants this page back', async () => {
  for (const [reason, code, least, most] of [
    ['retry=17', 1001, 17_000, 18_000],
    ['retry=0', 1001, 0, 1000],
    ['retry=999999', 1001, 300_000, 301_000], // a mistake, or a hostile server
    ['retry=-5', 1001, 2000, 4000],
    ['come back soon', 1001, 2000, 4000],
    ['retry=17', 1006, 500, 1000], // not said by a server
    ['retry=17', 1013, 500, 1000], // not of this code
  ]) {
    const w = world();
    w.sockets[0].open();
    await w.fail(code, reason);
    const { kind, wait } = w.states.at(-1);
    assert.equal(kind, code === 1001 ? 'restarting' : 'lost', reason);
    assert.ok(wait >= least && wait <= most, `${reason} with ${code}: ${wait}`);
    w.pass(Math.max(0, wait - 1));
    assert.equal(w.sockets.length, 1, 'not before');
    w.pass(1);
    assert.equal(w.sockets.length, 2, 'and then at once');
  }
});

test('a server that said that it goes is restarting, for a while', async () => {
  const w = world({ probe: () => Promise.reject(new TypeError('failed')) });
  w.sockets[0].open();
  await w.fail(1001);
  w.pass(5000);
  await w.fail();
  assert.equal(w.kind(), 'restarting', 'that nobody answers is to be expected');
  w.pass(70_000);
  await w.fail();
  assert.equal(w.kind(), 'unreachable', 'but not for ever');
});

test('why an upgrade failed', async () => {
  const answer = (status, headers) => () => new Response('', { status, headers });
  for (const [why, options, kind, least, most] of [
    ['nobody there', { probe: () => Promise.reject(new TypeError('failed')) }, 'unreachable', 500, 1000],
    ['it would let us in, so something between does not', { probe: answer(426) }, 'refused', 500, 1000],
    ['not this server', { probe: answer(404) }, 'refused', 7500, 15_000],
    ['said until when', { probe: answer(429, { 'Retry-After': '17' }) }, 'limited', 17_500, 18_000],
    ['did not say', { probe: answer(429) }, 'limited', 7500, 15_000],
    ['blocked', { probe: answer(403) }, 'blocked', 7500, 15_000],
    ['a proxy before a server that starts', { probe: answer(502) }, 'restarting', 500, 1000],
    ['a server that stops', { probe: answer(503, { 'Retry-After': '5' }) }, 'restarting', 5000, 5000],
    ['no network', { online: false, probe: () => Promise.reject(new TypeError('failed')) }, 'offline', 7500, 15_000],
    ['no network, and none needed', { online: false, probe: answer(429, { 'Retry-After': '3' }) }, 'limited', 3500, 4000],
  ]) {
    const w = world(options);
    await w.fail();
    const { kind: got, wait } = w.states.at(-1);
    assert.equal(got, kind, why);
    assert.ok(wait >= least && wait <= most, `${why}: waits ${wait}`);
    assert.equal(w.timers.size, 1, `${why}: one attempt is set`);
  }
});

test('the endpoint itself is asked, once a failure', async () => {
  const w = world();
  await w.fail();
  assert.equal(w.probed, 'https://host.example/ws');
  w.pass(60_000);
  await w.fail();
  assert.equal(w.probes, 2);
});

test('a long silence is not believed', async () => {
  const w = world();
  w.sockets[0].open();
  w.sockets[0].say('live');
  w.position = 'p1';
  w.pass(170_000);
  assert.equal(w.sockets.length, 1);
  w.pass(60_000);
  assert.equal(w.sockets.length, 2, 'whatever happened to the old connection, a new one tells');
  assert.ok(w.sockets[0].closed, 'the old one is given back');
  assert.equal(w.sockets[1].url, 'wss://host.example/ws?since=p1');
  assert.equal(w.kind(), 'quiet', 'the viewer sees nothing of it');
  w.sockets[1].open();
  w.pass(1000);
  assert.deepEqual(w.states.at(-1), { kind: 'quiet', wait: 0, quietFor: 231_000 });
  w.sockets[0].say('live');
  assert.equal(w.kind(), 'quiet', 'the old connection has nothing to say any more');
  w.sockets[1].say('live');
  assert.equal(w.kind(), 'live');
  assert.equal(w.timers.size, 0);
});

test('a renewal that fails is a failure', async () => {
  const w = world({ probe: () => Promise.reject(new TypeError('failed')) });
  w.sockets[0].open();
  w.pass(230_000);
  await w.fail();
  assert.equal(w.kind(), 'unreachable');
  assert.equal(w.timers.size, 1);
});

test('failures lengthen the wait until a connection has held', async () => {
  const w = world({ probe: () => Promise.reject(new TypeError('failed')) });
  for (let i = 0; i < 8; i += 1) {
    await w.fail();
    w.pass(60_000);
  }
  assert.equal(w.sockets.length, 9);
  w.sockets.at(-1).open();
  await w.fail();
  assert.ok(w.states.at(-1).wait >= 15_000, 'let in and thrown out at once is no success');
  w.pass(60_000);
  w.sockets.at(-1).open();
  w.pass(11_000);
  await w.fail();
  assert.ok(w.states.at(-1).wait <= 1000);
});

test('open again is open once', async () => {
  const w = world();
  w.connection.open();
  assert.equal(w.sockets.length, 1);
  w.sockets[0].close(1006);
  w.connection.open(); // while the reason is being asked for
  assert.equal(w.sockets.length, 1);
  await new Promise(setImmediate);
  w.connection.open(); // the network came back before the wait was over
  assert.equal(w.timers.size, 0, 'nothing knocks a second time');
  w.pass(120_000);
  assert.equal(w.sockets.length, 2);
});

test('the countdown counts down', async () => {
  const w = world();
  w.sockets[0].open();
  await w.fail();
  const { wait } = w.states.at(-1);
  w.pass(200);
  assert.equal(w.states.at(-1).wait, wait - 200);
});

test('a change of the network replaces an open connection, which may be dead', () => {
  const w = world();
  w.sockets[0].open();
  w.sockets[0].say('live');
  w.position = 'p1';
  w.pass(20_000);
  w.connection.open();
  assert.equal(w.sockets.length, 2);
  assert.ok(w.sockets[0].closed);
  assert.equal(w.sockets[1].url, 'wss://host.example/ws?since=p1');
  assert.equal(w.kind(), 'connecting', 'and nobody is said to be silent');
  for (let i = 0; i < 4; i += 1) {
    w.pass(1000);
    w.connection.open();
  }
  assert.equal(w.sockets.length, 2, 'a network that comes and goes is no reason to knock each time');
  w.sockets[0].say('live');
  assert.equal(w.kind(), 'connecting', 'the old connection has nothing to say any more');
});

test('a page that is shown again does not trust a silent connection', () => {
  for (const [why, silence, slept, opened, want] of [
    ['it was heard just now', 2000, 0, true, 1],
    ['it was silent for long', 40_000, 0, true, 2],
    ['the machine slept', 2000, 3_600_000, true, 2],
    ['an attempt is under way', 2000, 0, false, 1],
    ['an attempt is under way for long', 20_000, 0, false, 2],
  ]) {
    const w = world();
    if (opened) {
      w.sockets[0].open();
      w.sockets[0].say('live');
    }
    w.clock += silence;
    w.slept += slept;
    w.connection.wake();
    assert.equal(w.sockets.length, want, why);
  }
});

test('a page that is shown again does not wait for its next attempt', async () => {
  const w = world({ probe: () => new Response('', { status: 429, headers: { 'Retry-After': '50' } }) });
  await w.fail();
  w.pass(20_000);
  w.connection.wake();
  assert.equal(w.sockets.length, 2);
  assert.equal(w.timers.size, 0);
});

test('a machine that slept without a word to the page', () => {
  const w = world();
  w.sockets[0].open();
  w.sockets[0].say('live');
  w.pass(10_000);
  assert.equal(w.sockets.length, 1);
  w.slept += 60_000; // its clock stood still
  w.pass(1000);
  assert.equal(w.sockets.length, 2);
  w.slept -= 3_600_000; // a clock set back is no sleep
  w.sockets[1].open();
  w.pass(10_000);
  assert.equal(w.sockets.length, 2);
});

test('offline is said at once, and not of a network that is there', async () => {
  const w = world();
  w.sockets[0].open();
  w.sockets[0].say('live');
  w.connection.offline();
  assert.equal(w.kind(), 'offline');
  w.pass(60_000);
  assert.equal(w.kind(), 'offline', 'not that nobody publishes');
  w.sockets[0].say('live');
  assert.equal(w.kind(), 'live', 'a server of its own is still reached');
  w.connection.offline();
  await w.fail();
  assert.equal(w.kind(), 'offline');
  w.connection.open(); // online again
  assert.equal(w.kind(), 'connecting');
  w.sockets.at(-1).open();
  assert.equal(w.kind(), 'listening');
});

test('an attempt that gets no answer is given up', async () => {
  const w = world({ probe: () => Promise.reject(new TypeError('failed')) });
  w.pass(29_000);
  assert.equal(w.probes, 0);
  w.pass(2000);
  await new Promise(setImmediate);
  assert.equal(w.probes, 1, 'once');
  assert.ok(w.sockets[0].closed);
  assert.equal(w.kind(), 'unreachable');
  assert.equal(w.timers.size, 1);
});

test('an attempt that is replaced while the reason is asked for', async () => {
  let answer;
  const w = world({ probe: () => new Promise((done) => (answer = done)) });
  w.sockets[0].close(1006);
  await new Promise(setImmediate);
  w.clock += 6000;
  w.connection.open(); // the network is back
  assert.equal(w.sockets.length, 2);
  answer(new Response('', { status: 403 }));
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  w.sockets[1].open();
  assert.equal(w.kind(), 'listening', 'the old answer is not about this one');
  assert.equal(w.timers.size, 0);
  await w.fail();
  assert.equal(w.kind(), 'lost', 'and it is noticed when it ends');
});

test('an attempt that fails while the reason of the one before is asked for', async () => {
  const answers = [];
  const w = world({ probe: () => new Promise((done) => answers.push(done)) });
  w.sockets[0].close(1006);
  w.clock += 6000;
  w.connection.open();
  w.sockets[1].close(1006);
  assert.equal(w.probes, 2);
  answers[1](new Response('', { status: 502 }));
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  assert.equal(w.kind(), 'restarting');
  answers[0](new Response('', { status: 403 }));
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  assert.equal(w.kind(), 'restarting');
  assert.equal(w.timers.size, 1);
});

test('a change of the network just after a connection was opened', () => {
  for (const [why, heard, want] of [['it says nothing more', false, 2], ['it proves itself', true, 1]]) {
    const w = world();
    w.pass(1000);
    w.sockets[0].open();
    w.connection.open();
    assert.equal(w.sockets.length, 1);
    w.pass(2000);
    if (heard) w.sockets[0].say('live');
    w.pass(3000);
    assert.equal(w.sockets.length, want, why);
  }
});
