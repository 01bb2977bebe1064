import assert from 'node:assert/strict';
import test from 'node:test';
import { comeBack, delay, refusedDelay, retryAfter } from '../page/backoff.js';

const [least, most] = [() => 0, () => 1];

test('a delay doubles up to its bound, half of it by chance', () => {
  for (const [failures, low, high] of [
    [0, 500, 1000],
    [1, 1000, 2000],
    [3, 4000, 8000],
    [5, 15_000, 30_000],
    [5000, 15_000, 30_000], // no overflow to Infinity
  ]) {
    assert.equal(delay(failures, least), low, `after ${failures}`);
    assert.equal(delay(failures, most), high, `after ${failures}`);
  }
});

test('two viewers do not come back at the same time', () => {
  const drawn = new Set(Array.from({ length: 50 }, () => delay(5)));
  assert.ok(drawn.size > 40);
});

test('a refusal is not knocked at: at most eight attempts a minute', () => {
  assert.ok(refusedDelay(0, least) >= 7500);
  assert.equal(refusedDelay(1000, most), 60_000);
});

test('Retry-After', () => {
  for (const [header, ms] of [
    ['17', 17_000],
    ['0', 0],
    ['999999999', 86_400_000],
    [null, null],
    ['', null],
    ['-1', null],
    ['1.5', null],
    ['Tue, 01 Jan 2030 00:00:00 GMT', null], // a date needs the server's clock
  ]) {
    assert.equal(retryAfter(header), ms, String(header));
  }
});

test('when a server that goes wants us back', () => {
  for (const [reason, ms] of [
    ['retry=17', 17_000],
    ['retry=0', 0],
    ['retry=300', 300_000],
    ['retry=301', 300_000], // bounded
    ['retry=999999999', 300_000],
    ['retry=9999999999', null], // too long to be a number of seconds
    ['retry=', null],
    ['retry=-1', null],
    ['retry=1.5', null],
    ['retry=5 ', null],
    ['retry=5\nretry=6', null],
    ['server stopping', null],
    ['', null],
    [undefined, null],
  ]) {
    assert.equal(comeBack(reason, least), ms, String(reason));
    assert.equal(comeBack(reason, most), ms === null ? null : ms + 1000, String(reason));
  }
});
