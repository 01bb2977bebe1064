// Every figure and state, in words.

export function connectionWords(state, paused = false) {
  const words = stateWords(state);
  return paused ? `${words.replace(/\.$/, '')}. Paused here.` : words;
}

function stateWords({ kind, wait = 0, quietFor = 0 }) {
  const again = `Trying again in ${seconds(wait)}.`;
  switch (kind) {
    case 'connecting':
      return 'Connecting';
    case 'listening':
      return 'Connected, waiting';
    case 'live':
      return 'Live';
    case 'quiet':
      return quietFor < 60_000
        ? 'Quiet. Nobody is publishing.'
        : `Quiet. Nobody has published for ${minutes(quietFor)}.`;
    case 'lost':
      return `Connection lost. ${again}`;
    case 'restarting':
      return `The server is restarting. ${again}`;
    case 'unreachable':
      return `The server cannot be reached. ${again}`;
    case 'refused':
      return `The server answers, but opens no live connection. ${again}`;
    case 'limited':
      return `Refused: too many connections from your address. ${again}`;
    case 'blocked':
      return `Refused: your address is blocked. ${again}`;
    case 'offline':
      return 'Your device is offline.';
    default:
      return '';
  }
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
  return restarts === null ? 'This life' : `Life ${restarts + 1}`;
}

export function livesWords(restarts) {
  if (restarts === null) return '';
  if (restarts === 0) return 'Its first life';
  return restarts === 1 ? 'Life 2, after 1 restart' : `Life ${restarts + 1}, after ${restarts} restarts`;
}

export function farewell(ended) {
  const known = ended !== null && ended.restarts !== null;
  return `${known ? lifeWords(ended.restarts) : 'A life'} has ended.`;
}

// endWords says what became of the life before this one: the words before and
// after the time of day. ended is null where nobody here saw it.
export function endWords(ended) {
  if (ended === null) return ['Began at ', '. Nothing of the life before remains.'];
  const who = ended.restarts === null ? 'The life before' : lifeWords(ended.restarts);
  const full = ended.percent === null ? '' : `, its memory ${Math.round(ended.percent)}% full`;
  return [`${who} ended at `, `${full}. Nothing of it remains.`];
}

export function percentWords(memory) {
  return memory === null ? '–' : `${Math.round(memory.percent)}%`;
}

export function megabyteWords(memory) {
  if (memory === null || memory.total === 0) return '';
  const unit = memory.total >= 10_000 ? 'GB' : 'MB';
  return `${amount(memory.available, unit)} of ${amount(memory.total, unit)} ${unit} free`;
}

function amount(mb, unit) {
  if (unit === 'MB') return String(Math.round(mb));
  const gb = mb / 1024;
  return gb < 1e6 ? gb.toFixed(1) : gb.toExponential(1);
}

function seconds(ms) {
  const s = Math.max(1, Math.ceil(ms / 1000));
  return s < 120 ? `${s} s` : `${Math.ceil(s / 60)} min`;
}

function minutes(ms) {
  const m = Math.floor(ms / 60_000);
  if (m < 120) return m === 1 ? 'a minute' : `${m} minutes`;
  return `${Math.floor(m / 60)} hours`;
}
