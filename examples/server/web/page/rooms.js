// Keeps the list of rooms up to date.

import sentences from './language.js';
import { lifeWords, percentWords, say, use } from './words.js';

const every = 5000;
const troubled = 15_000;

use(document.documentElement.lang, sentences);

function show(element, { state, percent = null, life = 0 }) {
  element.dataset.state = state;
  const bar = element.querySelector('progress');
  if (percent === null) bar.removeAttribute('value');
  else bar.value = Math.round(percent);
  element.style.setProperty('--fill', percent ?? 0);
  for (const [name, words] of [
    ['percent', percentWords(percent === null ? null : { percent })],
    ['life', life > 0 ? lifeWords(life - 1) : ''],
    ['state', say(state)],
  ]) {
    const part = element.querySelector(`.${name}`);
    if (part.textContent !== words) part.textContent = words;
  }
}

function fill(rooms) {
  const elements = new Map([...document.querySelectorAll('#rooms li')].map((li) => [li.dataset.room, li]));
  // Another configuration of the server has other rooms.
  if (rooms.length !== elements.size || rooms.some(({ name }) => !elements.has(name))) return location.reload();
  for (const room of rooms) show(elements.get(room.name), room);
}

async function look() {
  let wait = every;
  let trouble = '';
  try {
    const answer = await fetch('rooms.json', { cache: 'no-store', credentials: 'omit', signal: AbortSignal.timeout(troubled) });
    if (!answer.ok) throw new Error(answer.status);
    fill((await answer.json()).rooms);
  } catch {
    wait = troubled * (1 + Math.random());
    trouble = `${say(navigator.onLine ? 'unreachable' : 'offline')} ${say('again', { time: say('inSeconds', { n: Math.round(wait / 1000) }) })}`;
  }
  const element = document.getElementById('trouble');
  if (element.textContent !== trouble) element.textContent = trouble;
  setTimeout(() => (document.hidden ? document.addEventListener('visibilitychange', look, { once: true }) : look()), wait);
}

// The page came with the figures, and this is the water of them.
for (const li of document.querySelectorAll('#rooms li')) {
  li.style.setProperty('--fill', li.querySelector('progress').getAttribute('value') ?? 0);
}
look();
