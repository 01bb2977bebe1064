import assert from 'node:assert/strict';
import test from 'node:test';
import { Connection, socketURL } from '../page/connection.js';

// world stands for the browser: its sockets do what a test says, its clock runs
// when a test lets it.
function world({ position = null, probe = () => new Response('ok'), online = true } = {}) {
  const w = { sockets: [], states: [], clock: 0, timers: new Map(), position, probes: 0 };
  let id = 0;
  const env = {
    WebSocket: class extends EventTarget {
      constructor(url) {
        super();
        this.url = url;
        w.sockets.push(this);
      }
      open() {
        this.dispatchEvent(new Event('open'));
      }
      say(data) {
        this.dispatchEvent(Object.assign(new Event('message'), { data }));
      }
      close(code = 1006) {
        this.closed = true;
        this.dispatchEvent(Object.assign(new Event('close'), { code }));
      }
    },
    fetch: async (url) => {
      w.probes += 1;
      w.probed = url.href;
      return probe();
    },
    now: () => w.clock,
    setTimeout: (f, ms) => {
      w.timers.set((id += 1), { f, at: w.clock + ms });
      return id;
    },
    clearTimeout: (timer) => w.timers.delete(timer),
    online: () => online,
  };
  w.connection = new Connection({
    page: 'https://host.example/',
    onData: (data) => data === 'live',
    onState: (state) => w.states.push(state),
    position: () => w.position,
    env,
  });
  w.pass = (ms) => {
    w.clock += ms;
    for (const [key, { f, at }] of [...w.timers]) {
      if (at <= w.clock && w.timers.delete(key)) f();
    }
    w.connection.tell();
  };
  w.kind = () => w.states.at(-1).kind;
  w.fail = async (code = 1006) => {
    w.sockets.at(-1).close(code);
    await new Promise(setImmediate);
  };
  w.connection.open();
  return w;
}

test('the socket is beside the page, with its security', () => {
  for (const [page, pos, want] of [
    ['http://h:3000/', null, 'ws://h:3000/ws'],
    ['https://h/#x', null, 'wss://h/ws'],
    ['https://h/art/?a=b', null, 'wss://h/art/ws'],
    ['https://h/', 'a+/=&', 'wss://h/ws?since=a%2B%2F%3D%26'],
  ]) {
    assert.equal(socketURL(page, pos), want);
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
    ['it would let us in, so something between does not', { probe: answer(426) }, 'refused', 7500, 15_000],
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
