import assert from 'node:assert/strict';
import test from 'node:test';
import { breakAt } from '../page/blocks.js';

// blocks cuts a stream that arrives in chunks, as stream.js does.
function blocks(chunks) {
  const done = [''];
  for (let text of chunks) {
    while (text !== '') {
      const cut = breakAt(done.at(-1), text);
      assert.ok(cut <= text.length && (cut !== 0 || done.at(-1) !== ''), `cut ${cut} of ${text.length}`);
      done[done.length - 1] += cut < 0 ? text : text.slice(0, cut);
      if (cut < 0) break;
      text = text.slice(cut);
      done.push('');
    }
  }
  return done;
}

const one = (text) => [text];
const words = (text) => text.split(/(?= )/);
const letters = (text) => [...text];
const stories = {
  lines: 'one\n\ntwo\n'.repeat(300),
  prose: 'A thought of 3.14 things. Then "another." '.repeat(400),
  breathless: 'and then '.repeat(2000),
  solid: 'x'.repeat(20_000),
  faces: `x${'🙂'.repeat(9000)}`, // two code units each, so every even cut would tear one
  chinese: '一个想法。'.repeat(3000),
};

for (const [name, story] of Object.entries(stories)) {
  for (const chunked of [one, words, letters]) {
    test(`${name}, arriving by ${chunked.name}`, () => {
      const got = blocks(chunked(story));
      assert.equal(got.join(''), story, 'nothing is lost or added');
      assert.ok(got.every((b) => b.length <= 4001), 'no block is long');
      assert.ok(got.every((b) => b.isWellFormed?.() ?? true), 'no character is torn');
    });
  }
}

test('a block ends with its line', () => {
  assert.deepEqual(blocks(['a\n', '\nb', 'c\nd']), ['a\n', '\n', 'bc\n', 'd']);
});

test('a long paragraph is cut after a sentence, however it arrives', () => {
  for (const chunked of [one, words, letters]) {
    for (const block of blocks(chunked(stories.prose)).slice(0, -1)) assert.match(block, /[.]"?\s$/);
  }
});

test('a sentence may have ended before the space that shows it', () => {
  assert.equal(breakAt(`${'x'.repeat(2100)}."`, ' And'), 1);
  assert.equal(breakAt(`${'x'.repeat(2100)}3.`, '14'), -1);
});

test('a short paragraph is left whole', () => {
  assert.equal(blocks(words('A short thought. Another. ')).length, 1);
});
