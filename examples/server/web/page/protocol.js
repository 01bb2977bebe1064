// What the server sends, checked. Whatever is not a frame of messages is null:
// answers to a publisher, types of a later version, and plain nonsense.

import { clean } from './clean.js';

export function parse(data) {
  if (typeof data !== 'string') return null;
  let frame;
  try {
    frame = JSON.parse(data);
  } catch {
    return null;
  }
  if (!isObject(frame) || !Array.isArray(frame.messages)) return null;
  if (frame.type !== 'history' && frame.type !== 'live') return null;
  return {
    type: frame.type,
    messages: frame.messages.filter(isObject).map(message),
    watching: isCount(frame.watching) && frame.watching > 0 ? frame.watching : null,
    state: isObject(frame.state) ? message(frame.state) : null,
    pos: typeof frame.pos === 'string' && frame.pos !== '' ? frame.pos : null,
  };
}

// A field that breaks its rule counts as absent, so that one bad figure does not
// cost the text beside it.
function message(m) {
  const status = isObject(m.status) ? m.status : {};
  return {
    text: typeof m.text === 'string' ? clean(m.text) : '',
    prompt: typeof m.prompt === 'string' ? clean(m.prompt).replace(/\r\n?/g, '\n') : null,
    memory: memory(m.memory),
    restarting: status.is_restarting === true,
    restarts: isCount(status.num_restarts) ? status.num_restarts : null,
    time: Number.isFinite(m.timestamp) && Math.abs(m.timestamp) <= 8.64e15 ? m.timestamp : null,
  };
}

function memory(m) {
  if (!isObject(m)) return null;
  const { available_mb: available, percent_used: percent, total_mb: total } = m;
  if (![available, percent, total].every(Number.isFinite)) return null;
  return {
    percent: Math.min(100, Math.max(0, percent)),
    available: Math.max(0, available),
    total: Math.max(0, total),
  };
}

const isObject = (v) => typeof v === 'object' && v !== null && !Array.isArray(v);
const isCount = (n) => Number.isSafeInteger(n) && n >= 0;
