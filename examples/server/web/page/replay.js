// Shows a life again that has ended: frames → player → state → text and label.

import { Announcer } from './announce.js';
import { Follow } from './follow.js';
import { fitLabel, showLabel } from './label.js';
import sentences from './language.js';
import { lines } from './lines.js';
import { showMoments } from './moments.js';
import { Player } from './player.js';
import { parse } from './protocol.js';
import { reduce, unborn } from './state.js';
import { Stream } from './stream.js';
import { lifeWords, replayWords, say, use } from './words.js';

use(document.documentElement.lang, sentences);

const $ = (id) => document.getElementById(id);
const every = 50; // ms between two looks at what is due
const bounds = { keep: 9_000_000, keepReading: 9_000_000, keepBlocks: 90_000 }; // all of a life, by default

const number = Number($('main').dataset.number ?? 0); // of the life; 0: not known
const newborn = { ...unborn, restarts: number > 0 ? number - 1 : null };

let life = newborn;
let said = '';
let refused = '';

const announcer = new Announcer($('announce'));
const follow = new Follow((following) => {
  $('latest').hidden = following;
});
const stream = new Stream($('text'), follow, () => showLabel(life), bounds);
const player = new Player(() => performance.now());

// show shows frames as one, since each change of the page has its price.
function show(frames) {
  if (frames.length === 0) return;
  const messages = frames.flatMap((frame) => frame.messages);
  const change = reduce(life, { ...frames[0], messages });
  life = { ...change.state, restarts: change.state.restarts ?? newborn.restarts };
  stream.apply(change);
  if (player.speed !== Infinity && !document.hidden) announcer.hear(change.text);
}

function write(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

const words = {
  loading: () => say('loading'),
  playing: ({ at, all }) => replayWords(at, all),
  paused: ({ at, all }) => `${replayWords(at, all)}. ${say('paused')}`,
  ended: () => say('hasEnded', { life: life.restarts === null ? say('aLife') : lifeWords(life.restarts) }),
  failed: () => say(refused || 'loadFailed'),
};
const dots = { loading: 'connecting', playing: 'live', paused: 'quiet', ended: 'quiet', failed: 'lost' };

function step() {
  const now = player.take();
  show(now.due);
  const text = words[now.kind](now);
  write($('state'), text);
  $('state').dataset.state = dots[now.kind];
  document.body.classList.toggle('away', now.kind === 'failed');
  document.body.classList.toggle('paused', now.kind === 'paused');
  const over = now.kind === 'ended' || now.kind === 'failed';
  write($('pause'), say(over ? 'fromStart' : now.kind === 'paused' ? 'continue' : 'pause'));
  $('over').hidden = now.kind !== 'ended';
  write($('gone'), now.kind === 'ended' ? text : '');
  if (now.kind === said) return;
  said = now.kind;
  if (over) announcer.say(text);
}

$('pause').addEventListener('click', () => {
  const over = said === 'ended' || said === 'failed';
  if (said === 'failed') {
    location.reload();
    return;
  }
  if (over) {
    if (player.speed === Infinity) setSpeed('1');
    player.restart();
    life = newborn;
    follow.resume();
  } else {
    player.paused = !player.paused;
  }
  announcer.forget();
  step();
});

function setSpeed(value) {
  $('speed').value = value;
  player.speed = value === 'all' ? Infinity : Number(value);
}
$('speed').addEventListener('change', () => {
  setSpeed($('speed').value);
  player.paused = false;
  announcer.forget();
  step();
});

$('latest').addEventListener('click', () => {
  follow.resume();
  $('main').focus({ preventScroll: true });
});

async function load() {
  const answer = await fetch(`${location.pathname}.jsonl`, { cache: 'no-store', credentials: 'omit' });
  if (!answer.ok) {
    if (answer.status === 429) refused = 'limited';
    if (answer.status === 403) refused = 'blocked';
    throw new Error(answer.statusText);
  }
  for await (const line of lines(answer.body)) {
    const frame = parse(line);
    if (frame) player.add(frame, frame.messages.at(-1)?.time ?? null);
    else if (line === '{"end":true}') return;
  }
  throw new Error('the end is missing');
}

// A visitor who wants no movement gets all of it at once.
setSpeed(matchMedia('(prefers-reduced-motion: reduce)').matches ? 'all' : '1');
showMoments();
showLabel(life);
new ResizeObserver(fitLabel).observe(document.querySelector('.label'));
setInterval(step, every);
load().then(
  () => player.complete(),
  () => player.fail(),
);
document.documentElement.dataset.started = '';
