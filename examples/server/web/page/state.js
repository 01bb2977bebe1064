// The life that the page shows, without its text, which only ever grows and lives
// in the document.

export const unborn = Object.freeze({
  prompt: '',
  memory: null,
  restarts: null, // as the device counts them; null: it has not said
  began: null, // ms since 1970, known when its restart was seen
  ended: null, // the life before, where its end was seen: restarts and percent, each null if unknown
});

// reduce returns the state after a frame and what the frame does to the text:
// cleared, whether all that is shown goes first; text, what is then appended;
// reborn, whether the viewer has just seen a life end.
export function reduce(state, frame) {
  let next = frame.type === 'history' ? unborn : state;
  let cleared = frame.type === 'history';
  let reborn = false;
  const text = [];
  for (const m of frame.messages) {
    if (m.restarting) {
      const counted = next.restarts === null ? null : next.restarts + 1;
      reborn = frame.type === 'live';
      const ended = reborn ? { restarts: next.restarts, percent: next.memory?.percent ?? null } : null;
      next = { ...unborn, restarts: counted, began: m.time, ended };
      cleared = true;
      text.length = 0;
    }
    next = {
      ...next,
      prompt: m.prompt ?? next.prompt,
      memory: m.memory ?? next.memory,
      restarts: m.restarts ?? next.restarts,
    };
    text.push(m.text);
  }
  // What holds after the frame, also if none of its messages says so.
  const { prompt, memory, restarts } = frame.state ?? {};
  next = {
    ...next,
    prompt: prompt ?? next.prompt,
    memory: memory ?? next.memory,
    restarts: restarts ?? next.restarts,
  };
  return { state: next, cleared, reborn, text: text.join('') };
}
