// Every figure and state, in words, from the sentences of one language.

let sentences = {};
let numbers = new Intl.NumberFormat('en');
let plurals = new Intl.PluralRules('en');

// use sets the language of all words: its tag and its sentences.
export function use(language, itsSentences) {
  sentences = itsSentences;
  numbers = new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1, useGrouping: false });
  plurals = new Intl.PluralRules(language);
}

// say returns a sentence with values in place of its names. Of a sentence with
// several forms, n chooses the one.
export function say(name, values = {}) {
  let sentence = sentences[name] ?? '';
  if (typeof sentence === 'object') sentence = sentence[plurals.select(values.n)] ?? sentence.other;
  return sentence.replace(/\{(\w+)\}/g, (_, key) => values[key] ?? '');
}

export function connectionWords(state, paused = false) {
  const words = stateWords(state);
  return paused ? `${words.replace(/\.$/, '')}. ${say('paused')}` : words;
}

const trying = new Set(['lost', 'restarting', 'unreachable', 'refused', 'limited', 'blocked']);

function stateWords({ kind, wait = 0, quietFor = 0 }) {
  if (trying.has(kind)) return `${say(kind)} ${say('again', { time: seconds(wait) })}`;
  if (kind === 'quiet' && quietFor >= 60_000) return say('quietFor', { time: minutes(quietFor) });
  return say(kind);
}

// worthSaying tells which states a listener hears of: not that it is tried again,
// which every failure brings anew, and not what was said last.
export function worthSaying(kind, last) {
  return kind !== 'connecting' && kind !== last;
}

// cutPrompt returns the beginning of a long prompt, in whole characters. Laying
// out all of it would hold the page up, and nobody reads that much on a label.
export function cutPrompt(prompt, longest = 4000) {
  if (prompt.length <= longest) return prompt;
  return `${prompt.slice(0, longest).replace(/[\ud800-\udbff]$/, '')}…`;
}

export function lifeWords(restarts) {
  return restarts === null ? say('thisLife') : say('life', { n: restarts + 1 });
}

export function livesWords(restarts) {
  if (restarts === null) return '';
  if (restarts === 0) return say('firstLife');
  return say('lives', { n: restarts, life: lifeWords(restarts) });
}

export function farewell(ended) {
  const known = ended !== null && ended.restarts !== null;
  return say('hasEnded', { life: known ? lifeWords(ended.restarts) : say('aLife') });
}

export function beginning(restarts) {
  return say('begins', { life: lifeWords(restarts) });
}

// endWords says what became of the life before this one: the words before and
// after the time of day. ended is null where nobody here saw it. kept is whether
// lives are kept, and something remains.
export function endWords(ended, kept = false) {
  const time = '\0';
  const way = kept ? 'Kept' : '';
  if (ended === null) return say(`began${way}`, { time }).split(time);
  const life = ended.restarts === null ? say('lifeBefore') : lifeWords(ended.restarts);
  const percent = ended.percent === null ? '' : percentOf(ended.percent);
  return say((percent === '' ? 'ended' : 'endedFull') + way, { life, percent, time }).split(time);
}

// clockWords says how long something takes: minutes and seconds, with hours where
// there are any.
export function clockWords(ms) {
  const s = Math.floor(Math.max(0, ms) / 1000);
  const two = (n) => String(n).padStart(2, '0');
  if (s < 3600) return `${Math.floor(s / 60)}:${two(s % 60)}`;
  return `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}

// replayWords says how far a replay is.
export function replayWords(at, all) {
  return say('replayed', { at: clockWords(at), all: clockWords(all) });
}

// watchingWords says how many watch, this page included.
export function watchingWords(watching) {
  return watching === null ? '' : say('watching', { n: watching });
}

export function percentWords(memory) {
  return memory === null ? '–' : percentOf(memory.percent);
}

function percentOf(percent) {
  return say('percent', { n: Math.round(percent) });
}

export function megabyteWords(memory) {
  if (memory === null || memory.total === 0) return '';
  const unit = memory.total >= 10_000 ? 'GB' : 'MB';
  return say('free', { free: amount(memory.available, unit), total: amount(memory.total, unit), unit });
}

function amount(mb, unit) {
  if (unit === 'MB') return String(Math.round(mb));
  const gb = mb / 1024;
  return gb < 1e6 ? numbers.format(gb) : gb.toExponential(1);
}

function seconds(ms) {
  const s = Math.max(1, Math.ceil(ms / 1000));
  return s < 120 ? say('inSeconds', { n: s }) : say('inMinutes', { n: Math.ceil(s / 60) });
}

function minutes(ms) {
  const m = Math.floor(ms / 60_000);
  return m < 120 ? say('minutes', { n: m }) : say('hours', { n: Math.floor(m / 60) });
}
