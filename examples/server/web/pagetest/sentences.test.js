import assert from 'node:assert/strict';
import test from 'node:test';
import { Pace, Sentences } from '../page/sentences.js';

function hear(...chunks) {
  const s = new Sentences();
  return [...chunks.flatMap((chunk) => s.push(chunk)), ...s.flush().map((rest) => `${rest}|`)];
}

for (const [why, chunks, want] of [
  ['word by word', ['I ', 'am', '.', ' Am', ' I?', ' So'], ['I am.', 'Am I?', 'So|']],
  ['two in one chunk', ['One. Two! Three? '], ['One.', 'Two!', 'Three?']],
  ['a full stop waits for what follows', ['Pi is 3.', '14 or so. '], ['Pi is 3.14 or so.']],
  ['closing quotes belong to it', ['“Why?” she thought.\n'], ['“Why?”', 'she thought.']],
  ['a line ends it', ['A title\nand more'], ['A title', 'and more|']],
  ['no spaces between sentences in Japanese', ['私は。いる。まだ'], ['私は。', 'いる。', 'まだ|']],
  ['white space folds', ['a\t\t b  c. '], ['a b c.']],
  ['ornaments are not read out', ['***\n---\n...\n'], []],
  ['nothing', ['', ''], []],
]) {
  test(why, () => assert.deepEqual(hear(...chunks), want));
}

test('a stream without full stops is cut at spaces', () => {
  const heard = hear('word '.repeat(200));
  assert.ok(heard.length >= 3);
  assert.ok(heard.every((s) => s.length <= 301 && !/\bwor\b/.test(s)));
});

test('nor does one without spaces pile up', () => {
  const heard = hear(...Array(50).fill('x'.repeat(100)));
  assert.equal(heard.join('').replace('|', '').length, 5000);
  assert.ok(heard.every((s) => s.length <= 301));
});

test('clear forgets the sentence that was under way', () => {
  const s = new Sentences();
  s.push('half a');
  s.clear();
  assert.deepEqual(s.push('New. '), ['New.']);
});

test('nobody is told more than can be said', () => {
  const pace = new Pace();
  const sentence = 'x'.repeat(100); // 6.5 s
  const said = Array.from({ length: 100 }, (_, i) => pace.allows(sentence, i * 100)).filter(Boolean);
  assert.ok(said.length >= 4 && said.length <= 6, `${said.length} sentences of 6.5 s within 10 s`);
  assert.ok(pace.allows(sentence, 60_000), 'who has caught up hears the newest');
});

test('a voice that keeps up hears everything', () => {
  const pace = new Pace();
  for (let i = 0; i < 1000; i += 1) assert.ok(pace.allows('x'.repeat(100), i * 6500));
});
