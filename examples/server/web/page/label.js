// The label beside the text: who speaks, what it was asked, how full it is.

import { cutPrompt, endWords, lifeWords, livesWords, megabyteWords, percentWords, say, watchingWords } from './words.js';

let prompted = '';

const $ = (id) => document.getElementById(id);

export function showWatching(watching) {
  write($('watching'), watchingWords(watching));
  $('watching').hidden = watching === null;
}

export function showLabel(state) {
  showLife(state);
  showPrompt(state.prompt);
  showMemory(state.memory);
}

function showLife({ restarts, began, ended }) {
  write($('lives'), livesWords(restarts));
  write($('life'), lifeWords(restarts));
  const birth = $('birth');
  birth.hidden = began === null;
  if (began === null || birth.dataset.at === String(began)) return;
  birth.dataset.at = began;
  const time = document.createElement('time');
  time.dateTime = new Date(began).toISOString();
  time.textContent = new Date(began).toLocaleTimeString(locale(), { hour: '2-digit', minute: '2-digit' });
  const kept = 'lives' in document.documentElement.dataset;
  const [before, after] = endWords(ended, kept);
  birth.replaceChildren(before, time, after);
}

// locale is that of the visitor if it has the language of the page, so that the
// time of day is written as the visitor is used to.
export function locale() {
  const { lang } = document.documentElement;
  return navigator.languages.find((l) => l.split('-')[0] === lang.split('-')[0]) ?? lang;
}

function showPrompt(prompt) {
  if (prompted === prompt) return;
  prompted = prompt;
  const element = $('prompt');
  element.closest('section').hidden = prompt === '';
  element.textContent = cutPrompt(prompt);
  fitLabel();
}

// fitLabel tells the style how much of a narrow page the label covers, and lets the
// keyboard scroll a prompt that is too long for its place.
export function fitLabel() {
  const label = document.querySelector('.label');
  document.documentElement.style.setProperty('--strip', `${label.offsetHeight}px`);
  const prompt = $('prompt');
  if (prompt.scrollHeight > prompt.clientHeight + 1) prompt.tabIndex = 0;
  else prompt.removeAttribute('tabindex');
}

function showMemory(memory) {
  const gauge = $('memory');
  if (memory === null) gauge.removeAttribute('value');
  else gauge.value = memory.percent;
  gauge.setAttribute('aria-valuetext', memory === null ? say('notKnown') : percentWords(memory));
  write($('percent'), percentWords(memory));
  write($('reading'), memory === null ? '' : percentWords(memory));
  write($('megabytes'), megabyteWords(memory));
  // Not on the root, whose every paragraph would be styled anew.
  document.querySelector('.tide').style.setProperty('--fill', memory === null ? '0' : memory.percent.toFixed(1));
}

function write(element, words) {
  if (element.textContent !== words) element.textContent = words;
}
