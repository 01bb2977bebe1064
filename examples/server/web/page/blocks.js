// Where the stream may be cut into elements, so that a new word lays out one
// paragraph again and not all of them, and the oldest can be dropped whole.

const soft = 2000; // from here on, the end of a sentence will do
const hard = 4000; // here, a space; and without one, anything
const overlap = 3; // a full stop and a quote may have come before the space

// breakAt returns how much of text still belongs to the block that holds before,
// 0 to begin another with it, or -1 where the block stays open. It cuts after
// something, never in place of it, so that the blocks joined are the text again.
export function breakAt(before, text) {
  const room = hard - before.length;
  if (room <= 0) return 0;
  const line = text.indexOf('\n') + 1;
  if (line > 0 && line <= room) return line;
  if (before.length + text.length <= soft) return -1;
  const sentence = sentenceEnd(before, text);
  if (sentence > 0 && sentence <= room) return sentence;
  if (text.length <= room) return -1;
  return text.lastIndexOf(' ', room - 1) + 1 || (splitsPair(text, room) ? room + 1 : room);
}

function sentenceEnd(before, text) {
  const tail = before.slice(-overlap);
  const end = /[.!?…]["'”’»)]*\s|[。！？]["'”’」』]*/gu;
  end.lastIndex = Math.max(0, soft - before.length);
  for (const found of (tail + text).matchAll(end)) {
    const cut = found.index + found[0].length - tail.length;
    if (cut > 0) return cut;
  }
  return -1;
}

function splitsPair(text, at) {
  const before = text.charCodeAt(at - 1);
  return before >= 0xd800 && before <= 0xdbff;
}
