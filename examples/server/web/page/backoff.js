// How long to wait before the next attempt.

const first = 1000;
const longest = 30_000;
const windowOfLimit = 60_000;

// delay returns milliseconds: doubling with every failure, half of it by chance,
// so that the viewers of a server that comes back do not all come back at once.
export function delay(failures, random = Math.random) {
  return spread(Math.min(longest, first * 2 ** Math.min(failures, 30)), random);
}

// refusedDelay is for a server that is there and does not let us in. Its limit
// counts per minute, and attempts count too: asking often would only keep the
// door shut.
export function refusedDelay(failures, random = Math.random) {
  return spread(Math.min(windowOfLimit, 15_000 * 2 ** Math.min(failures, 10)), random);
}

// retryAfter reads the seconds of a Retry-After header, null where there are none.
// A day at most: a longer wait than that is somebody's mistake.
export function retryAfter(header) {
  if (!/^\d{1,9}$/.test(header ?? '')) return null;
  return Math.min(86_400, Number(header)) * 1000;
}

// comeBack reads when a server that goes wants this page back, from the reason of
// its close frame: "retry=" and seconds. null where it says nothing of it. Five
// minutes at most, and a second by chance, for the others with the same number.
export function comeBack(reason, random = Math.random) {
  const told = /^retry=(\d{1,9})$/.exec(reason ?? '');
  return told && Math.min(300, Number(told[1])) * 1000 + Math.round(1000 * random());
}

function spread(ms, random) {
  return Math.round(ms / 2 + (ms / 2) * random());
}
