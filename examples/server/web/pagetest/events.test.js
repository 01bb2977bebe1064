import assert from 'node:assert/strict';
import test from 'node:test';
import { world } from './world.js';

// blocked is a network that lets no WebSocket pass: events are tried.
async function blocked(more) {
  const w = world({ probe: () => new Response('', { status: 426 }), ...more });
  await w.fail();
  assert.equal(w.kind(), 'refused');
  w.pass(1000);
  await w.fail();
  w.pass(2000);
  assert.equal(w.sockets.length, 2);
  assert.equal(w.sources.length, 1);
  return w;
}

test('after two upgrades that fail, events come from beside the page', async () => {
  const w = await blocked({ position: 'a+1' });
  const [source] = w.sources;
  assert.equal(source.url, 'https://host.example/events?since=a%2B1');
  source.tell('open');
  assert.equal(w.kind(), 'listening');
  source.tell('message', 'live');
  assert.equal(w.kind(), 'live');
});

test('events that end are opened again, and by the page', async () => {
  const w = await blocked();
  w.sources[0].tell('open');
  w.sources[0].tell('error');
  assert.ok(w.sources[0].closed, 'the browser would connect again by itself');
  assert.equal(w.kind(), 'lost');
  w.pass(4000);
  w.sources[1].tell('open');
  w.sources[1].tell('close', '{"code":1001,"reason":"retry=17"}');
  assert.equal(w.kind(), 'restarting');
  w.pass(16_000);
  assert.equal(w.sources.length, 2, 'not before the server wants it');
  w.pass(2000);
  assert.equal(w.sources.length, 3);
  assert.equal(w.sockets.length, 2);
});

test('on events, an upgrade is tried from time to time, and taken', async () => {
  const w = await blocked({ position: 'p' });
  const [source] = w.sources;
  source.tell('open');
  const talk = (minutes) => {
    for (let i = 0; i < minutes; i += 1) {
      source.tell('message', 'live');
      w.pass(60_000);
    }
  };
  talk(6);
  assert.equal(w.sockets.length, 3, 'one attempt in five minutes');
  w.sockets[2].close();
  talk(6);
  assert.equal(w.sockets.length, 4);
  assert.ok(!source.closed, 'meanwhile the events go on');
  w.position = 'q';
  w.sockets[3].open();
  assert.ok(w.sockets[3].closed, 'it has the position of before');
  assert.ok(source.closed);
  assert.equal(w.sockets[4].url, 'wss://host.example/ws?since=q');
  assert.equal(w.kind(), 'quiet', 'as before');
  w.sockets[4].open();
  w.pass(600_000);
  assert.equal(w.sources.length, 1);
});

test('an upgrade is tried when events are opened late', async () => {
  const w = await blocked();
  w.sources[0].tell('error');
  await new Promise(setImmediate);
  w.pass(400_000);
  assert.equal(w.sockets.length, 3);
  await w.fail();
  w.pass(30_000);
  assert.equal(w.sources.length, 2, 'and one that fails is enough then');
});

test('upgrades that fail are counted in a row', async () => {
  let status = 426;
  const w = world({ probe: () => new Response('', { status }) });
  for (status of [426, 429, 426, 503, 426]) {
    await w.fail();
    w.pass(100_000);
  }
  assert.equal(w.sources.length, 0);
});

test('an upgrade that opens after the events have ended changes nothing', async () => {
  const w = await blocked();
  w.sources[0].tell('open');
  for (let i = 0; i < 6; i += 1) {
    w.sources[0].tell('message', 'live');
    w.pass(60_000);
  }
  w.sources[0].tell('close', '{"code":1001,"reason":"retry=120"}');
  w.sockets[2].open();
  assert.equal(w.kind(), 'restarting', 'the server said when');
  assert.equal(w.sockets.length, 3);
});

test('refusals and outages say nothing about upgrades', async () => {
  for (const [status, why] of [
    [429, 'too many connections'],
    [403, 'blocked'],
    [503, 'restarting'],
  ]) {
    const w = world({ probe: () => new Response('', { status }) });
    for (let i = 0; i < 5; i += 1) {
      await w.fail();
      w.pass(100_000);
    }
    assert.equal(w.sources.length, 0, why);
  }
});
