import assert from 'node:assert/strict';
import test from 'node:test';
import { Kiosk } from '../page/kiosk.js';

const own = '0123456789abcdef';
const other = 'fedcba9876543210';

// world is a page at which nobody sits, in fake time. served is what the server
// says its version is; null: it is not reachable.
function world() {
  const w = { now: 0, served: own, unattended: true, reloads: 0, asked: 0, kept: undefined, timer: null };
  const env = {
    unattended: () => w.unattended,
    fetch: async () => {
      w.asked += 1;
      if (w.served === null) throw new TypeError('no network');
      return { ok: !String(w.served).startsWith('5'), text: async () => `${w.served}\n` };
    },
    setTimeout: (f, ms) => {
      w.timer = { f, at: w.now + ms };
      return 1;
    },
    clearTimeout: () => {
      w.timer = null;
    },
    reload: () => {
      w.reloads += 1;
    },
    tried: () => w.kept,
    try: (version) => {
      w.kept = version;
    },
  };
  w.kiosk = new Kiosk(own, env);
  w.pass = async (ms) => {
    for (const end = w.now + ms; w.now < end; ) {
      w.now += 10_000;
      if (w.timer && w.timer.at <= w.now) await w.timer.f();
      await new Promise(setImmediate);
    }
  };
  return w;
}

const hour = 3_600_000;

test('a page of an older server is loaded again after the reconnection', async () => {
  const w = world();
  w.kiosk.connected(true);
  w.served = null;
  w.kiosk.connected(false);
  await w.pass(5 * hour);
  assert.equal(w.reloads, 0, 'not while the server is away: the browser would show a page of its own for good');
  w.served = other;
  w.kiosk.connected(true);
  await w.pass(10_000);
  assert.equal(w.reloads, 1);
});

test('a page is loaded again without any lost connection, some time after an update', async () => {
  const w = world();
  w.kiosk.connected(true);
  w.served = other;
  await w.pass(hour / 3);
  assert.equal(w.reloads, 1);
});

test('the same page stays', async () => {
  const w = world();
  for (let i = 0; i < 20; i += 1) {
    w.kiosk.connected(false);
    w.kiosk.connected(true);
    await w.pass(hour);
  }
  assert.equal(w.reloads, 0);
  assert.ok(w.asked >= 20);
});

test('a cache with the old page does not make it load again and again', async () => {
  const w = world();
  w.served = other;
  await w.pass(24 * hour);
  assert.equal(w.reloads, 1);
});

test('a reader is not disturbed', async () => {
  const w = world();
  w.unattended = false;
  w.served = other;
  w.kiosk.mistake();
  await w.pass(24 * hour);
  assert.equal(w.reloads, 0);
});

test('an answer that is no version, such as the login page of a café, changes nothing', async () => {
  for (const served of ['<!doctype html>', '', '503', null]) {
    const w = world();
    w.served = served;
    await w.pass(3 * hour);
    assert.equal(w.reloads, 0, String(served));
  }
});

test('after a mistake of a script the page is loaded again, once the server answers', async () => {
  const w = world();
  w.served = null;
  w.kiosk.mistake();
  await w.pass(2 * hour);
  assert.equal(w.reloads, 0);
  w.served = own;
  await w.pass(hour);
  assert.ok(w.reloads >= 1);
});
