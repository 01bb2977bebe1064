// Puts the page together: connection → protocol → state → text and label.

import { Announcer } from './announce.js';
import { Connection } from './connection.js';
import { Follow } from './follow.js';
import { browserEnv, Kiosk } from './kiosk.js';
import { fitLabel, showLabel, showWatching } from './label.js';
import sentences from './language.js';
import { parse } from './protocol.js';
import { offerCode, watchScreen } from './screen.js';
import { reduce, unborn } from './state.js';
import { Stream } from './stream.js';
import { beginning, connectionWords, farewell, say, use, worthSaying } from './words.js';

use(document.documentElement.lang, sentences);

const $ = (id) => document.getElementById(id);

let life = unborn;
let pos = null;

const announcer = new Announcer($('announce'));
const follow = new Follow((following) => {
  $('latest').hidden = following;
});
const stream = new Stream($('text'), follow, ({ cleared, reborn }) => {
  if (cleared && reborn) {
    $('end').textContent = farewell(life.ended);
    document.body.classList.remove('reborn');
    void document.body.offsetWidth; // so that the animation begins again
    document.body.classList.add('reborn');
    follow.resume();
  }
  showLabel(life); // last: how the water leaves depends on why
});

// receive returns whether somebody is publishing now.
function receive(data) {
  const frame = parse(data);
  if (!frame) return false;
  pos = frame.pos ?? (frame.type === 'history' ? null : pos);
  const change = reduce(life, frame);
  life = change.state;
  stream.apply(change);
  showWatching(frame.watching);
  if (change.cleared) announcer.forget();
  if (change.reborn && !stream.paused) announcer.say(`${farewell(life.ended)} ${beginning(life.restarts)}`);
  const live = frame.type === 'live';
  if (live && !stream.paused && !document.hidden) announcer.hear(change.text);
  return live;
}

const kiosk = new Kiosk(document.documentElement.dataset.version, browserEnv());
const present = new Set(['listening', 'live', 'quiet']);
let shown = '';
let said = '';
function showConnection(state) {
  const element = $('state');
  const words = connectionWords(state, stream.paused);
  if (element.textContent !== words) element.textContent = words;
  kiosk.connected(present.has(state.kind));
  if (state.kind === shown) return;
  shown = state.kind;
  element.dataset.state = state.kind;
  document.body.dataset.state = state.kind;
  // While it knocks again, it is still away: the label keeps its shape.
  if (state.kind !== 'connecting') document.body.classList.toggle('away', !present.has(state.kind));
  if (!worthSaying(state.kind, said)) return;
  said = state.kind;
  announcer.say(words);
}

const connection = new Connection({
  page: document.baseURI,
  room: document.documentElement.dataset.room ?? null,
  onData: receive,
  onState: showConnection,
  position: () => pos,
  env: {
    WebSocket,
    EventSource,
    fetch: (...request) => fetch(...request),
    now: () => performance.now(),
    today: () => Date.now(),
    setTimeout: (...timer) => setTimeout(...timer),
    clearTimeout: (timer) => clearTimeout(timer),
    online: () => navigator.onLine,
  },
});

$('latest').addEventListener('click', () => {
  follow.resume();
  $('main').focus({ preventScroll: true });
});
function pause(paused) {
  stream.paused = paused;
  document.body.classList.toggle('paused', paused);
  $('pause').textContent = say(paused ? 'continue' : 'pause');
  if (paused) announcer.forget();
  connection.tell();
}
$('pause').addEventListener('click', () => pause(!stream.paused));
$('life').addEventListener('animationend', () => document.body.classList.remove('reborn'));
watchScreen($('fullscreen'), () => {
  pause(false);
  follow.resume();
  $('qr')?.close();
});
offerCode($('share'), $('qr'));
new ResizeObserver(fitLabel).observe(document.querySelector('.label'));
addEventListener('online', () => connection.open());
addEventListener('offline', () => connection.offline());
for (const type of ['error', 'unhandledrejection']) addEventListener(type, () => kiosk.mistake());
document.addEventListener('resume', () => connection.wake());
addEventListener('pageshow', ({ persisted }) => persisted && connection.open());
document.addEventListener('visibilitychange', () => document.hidden || connection.wake());
setInterval(() => connection.tell(), 1000);
showLabel(life);
connection.open();
document.documentElement.dataset.started = '';
