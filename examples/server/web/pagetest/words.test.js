import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import test, { beforeEach } from 'node:test';
import {
  clockWords,
  connectionWords,
  cutPrompt,
  endWords,
  farewell,
  lifeWords,
  livesWords,
  megabyteWords,
  percentWords,
  replayWords,
  use,
  watchingWords,
  worthSaying,
} from '../page/words.js';

const folder = new URL('../languages/', import.meta.url);
const speak = (language) => use(language, JSON.parse(readFileSync(new URL(`${language}.json`, folder))));
beforeEach(() => speak('en'));

test('every language has its words', () => {
  for (const [language, want] of [
    ['de', ['Still. Seit einer Minute hat niemand gesendet.', 'Leben 2, nach 1 Neustart', '62\u00a0%', '4,0 von 16,0 GB frei', 'Leben 5 endete um TIME, der Speicher zu 97\u00a0% voll. Davon bleibt nichts.']],
    ['fr', ['Silence. Personne n’a publié depuis une minute.', 'Vie 2, après 1 redémarrage', '62\u00a0%', '4,0 sur 16,0 GB libres', 'Vie 5\u00a0: terminée à TIME, la mémoire pleine à 97\u00a0%. Il n’en reste rien.']],
  ]) {
    speak(language);
    assert.deepEqual(
      [
        connectionWords({ kind: 'quiet', quietFor: 61_000 }),
        livesWords(1),
        percentWords({ percent: 61.6 }),
        megabyteWords({ available: 4096, total: 16_384 }),
        endWords({ restarts: 4, percent: 96.6 }).join('TIME'),
      ],
      want,
    );
  }
});

test('no language leaves a state without words', () => {
  const kinds = ['connecting', 'listening', 'live', 'quiet', 'lost', 'restarting', 'unreachable', 'refused', 'limited', 'blocked', 'offline'];
  for (const file of readdirSync(folder)) {
    speak(file.replace('.json', ''));
    const words = kinds.map((kind) => connectionWords({ kind, wait: 9000, quietFor: 7_300_000 }, true));
    assert.equal(new Set(words).size, kinds.length, file);
    for (const sentence of words) assert.doesNotMatch(sentence, /[{}]|undefined|^\W/, file);
  }
});

test('every state of the connection has words', () => {
  for (const [state, want] of [
    [{ kind: 'connecting' }, 'Connecting'],
    [{ kind: 'listening' }, 'Connected, waiting'],
    [{ kind: 'live' }, 'Live'],
    [{ kind: 'quiet', quietFor: 20_000 }, 'Quiet. Nobody is publishing.'],
    [{ kind: 'quiet', quietFor: 61_000 }, 'Quiet. Nobody has published for a minute.'],
    [{ kind: 'quiet', quietFor: 7 * 3_600_000 }, 'Quiet. Nobody has published for 7 hours.'],
    [{ kind: 'lost', wait: 1500 }, 'Connection lost. Trying again in 2 s.'],
    [{ kind: 'lost', wait: 0 }, 'Connection lost. Trying again in 1 s.'],
    [{ kind: 'restarting', wait: 900 }, 'The server is restarting. Trying again in 1 s.'],
    [{ kind: 'unreachable', wait: 8000 }, 'The server cannot be reached. Trying again in 8 s.'],
    [
      { kind: 'refused', wait: 30_000 },
      'The server answers, but opens no live connection. Trying again in 30 s.',
    ],
    [{ kind: 'limited', wait: 3_600_000 }, 'Refused: too many connections from your address. Trying again in 60 min.'],
    [{ kind: 'blocked', wait: 30_000 }, 'Refused: your address is blocked. Trying again in 30 s.'],
    [{ kind: 'offline' }, 'Your device is offline.'],
  ]) {
    assert.equal(connectionWords(state), want);
  }
});

test('a page that is paused says so', () => {
  assert.equal(connectionWords({ kind: 'live' }, true), 'Live. Paused here.');
  assert.equal(connectionWords({ kind: 'offline' }, true), 'Your device is offline. Paused here.');
});

test('lives are one more than restarts', () => {
  assert.deepEqual([null, 0, 1, 7].map(lifeWords), ['This life', 'Life 1', 'Life 2', 'Life 8']);
  assert.deepEqual([null, 0, 1, 7].map(livesWords), [
    '',
    'Its first life',
    'Life 2, after 1 restart',
    'Life 8, after 7 restarts',
  ]);
});

test('a listener hears what is new, and not every attempt', () => {
  const told = [];
  for (const kind of ['connecting', 'unreachable', 'connecting', 'unreachable', 'connecting', 'listening', 'live']) {
    if (worthSaying(kind, told.at(-1))) told.push(kind);
  }
  assert.deepEqual(told, ['unreachable', 'listening', 'live']);
});

test('an end', () => {
  for (const [ended, words, line] of [
    [null, 'A life has ended.', 'Began at TIME. Nothing of the life before remains.'],
    [
      { restarts: 4, percent: 96.6 },
      'Life 5 has ended.',
      'Life 5 ended at TIME, its memory 97% full. Nothing of it remains.',
    ],
    [{ restarts: 0, percent: null }, 'Life 1 has ended.', 'Life 1 ended at TIME. Nothing of it remains.'],
    [{ restarts: null, percent: null }, 'A life has ended.', 'The life before ended at TIME. Nothing of it remains.'],
  ]) {
    assert.equal(farewell(ended), words);
    assert.equal(endWords(ended).join('TIME'), line);
  }
});

test('memory', () => {
  for (const [memory, percent, free] of [
    [null, '–', ''],
    [{ percent: 61.6, available: 380.4, total: 1024 }, '62%', '380 of 1024 MB free'],
    [{ percent: 50, available: 4096, total: 16_384 }, '50%', '4.0 of 16.0 GB free'],
    [{ percent: 9, available: 1, total: 0 }, '9%', ''],
    [{ percent: 0, available: 1e300, total: 1e300 }, '0%', '9.8e+296 of 9.8e+296 GB free'],
  ]) {
    assert.equal(percentWords(memory), percent);
    assert.equal(megabyteWords(memory), free);
  }
});

test('a long prompt is cut in whole characters', () => {
  assert.equal(cutPrompt('Think.'), 'Think.');
  assert.equal(cutPrompt('abc', 3), 'abc');
  assert.equal(cutPrompt('abcd', 3), 'abc…');
  assert.equal(cutPrompt('ab😀', 3), 'ab…');
  assert.ok(cutPrompt('x'.repeat(60_000)).length <= 4001);
});

test('how many watch', () => {
  assert.equal(watchingWords(null), '');
  assert.equal(watchingWords(1), 'You alone are watching');
  assert.equal(watchingWords(12), '12 are watching');
});

test('where lives are kept, nothing is said to be gone', () => {
  for (const file of readdirSync(folder)) {
    speak(file.replace('.json', ''));
    for (const ended of [null, { restarts: 4, percent: null }, { restarts: null, percent: 97 }]) {
      const gone = endWords(ended).join('TIME');
      const kept = endWords(ended, true).join('TIME');
      assert.ok(gone.startsWith(kept) && kept.includes('TIME') && kept.length < gone.length, `${file}: ${kept}`);
    }
  }
});

test('a replay says how far it is', () => {
  for (const [ms, want] of [[-5, '0:00'], [999, '0:00'], [61_000, '1:01'], [3_599_999, '59:59'], [3_600_000, '1:00:00'], [90_061_000, '25:01:01']]) {
    assert.equal(clockWords(ms), want);
  }
  assert.equal(replayWords(12_000, 3_720_000), '0:12 of 1:02:00');
});
