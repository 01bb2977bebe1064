import assert from 'node:assert/strict';
import test from 'node:test';
import { clean } from '../page/clean.js';
import { Markdown, spoken } from '../page/markdown.js';

// Sheet writes down what Markdown makes, as [kind text] with <span text>.
class Sheet {
  blocks = [];
  calls = 0;
  shown = '';

  block(kind, detail) {
    this.calls += 1;
    const about = kind === 'heading' ? detail.level : kind === 'item' ? `${detail.number ?? ''}/${detail.depth}` : '';
    this.blocks.push({ name: kind + about, parts: [] });
    this.at = [this.blocks.at(-1).parts];
  }

  text(words) {
    this.calls += 1;
    assert.notEqual(words, '');
    this.at.at(-1).push(words);
  }

  open(tag) {
    const span = { tag, parts: [] };
    this.at.at(-1).push(span);
    this.at.push(span.parts);
  }

  close() {
    this.at.pop();
    assert.ok(this.at.length > 0);
  }

  unwrap(mark) {
    this.at.pop();
    const { parts } = this.at.at(-1).pop();
    this.at.at(-1).push(mark, ...parts);
  }

  tail(words) {
    this.shown = words;
  }

  toString() {
    const write = (parts) => parts.map((p) => (typeof p === 'string' ? p : `<${p.tag} ${write(p.parts)}>`)).join('');
    return this.blocks.map(({ name, parts }) => `[${name} ${write(parts)}]`).join('').replace(/\n/g, '⏎');
  }
}

function read(chunks) {
  const sheet = new Sheet();
  const markdown = new Markdown(sheet);
  for (const chunk of chunks) markdown.push(chunk);
  return sheet;
}

const rows = [
  ['plain words', 'One. Two', '[text One. Two]'],
  ['a line is a block', 'a\nb', '[text a⏎][text b]'],
  ['bare carriage returns, and both', 'a\rb\r\nc', '[text a⏎][text b⏎][text c]'],
  ['empty lines are bounded', 'a\n\n\n\n\n\nb', '[text a⏎][text ⏎][text ⏎][text b]'],
  ['empty lines with blanks too', 'a\n \n\t\n  \n\nb', '[text a⏎][text ⏎][text ⏎][text b]'],
  ['emphasis', 'so *very* **sure**, _quite_ __so__.', '[text so <em very> <strong sure>, <em quite> <strong so>.]'],
  ['both', '***all*** of it', '[text <strong <em all>> of it]'],
  ['one in the other', '**a *b* c**.', '[text <strong a <em b> c>.]'],
  ['snake_case and 2*3*4 are no emphasis', 'snake_case_name 2*3*4 a * b * c', '[text snake_case_name 2*3*4 a * b * c]'],
  ['a star that nobody closes is a star', 'a *star\nb', '[text a *star⏎][text b]'],
  ['a mark within that nobody closes', '**a *b c** d\n', '[text <strong a *b c> d⏎]'],
  ['code', 'a `b *c*` d', '[text a <code b *c*> d]'],
  ['code with a tick', 'a ``b`c`` d', '[text a <code b`c> d]'],
  ['a tick that nobody closes is a tick', 'a `b *c*\n', '[text a `b *c*⏎]'],
  ['headings', '# One\n###### Six\n####### Seven\n#tag', '[heading1 One⏎][heading6 Six⏎][text ####### Seven⏎][text #tag]'],
  ['lists', '- a\n* b\n+ c\n', '[item/0 a⏎][item/0 b⏎][item/0 c⏎]'],
  ['numbered lists', '1. a\n2) b\n1986. A year', '[item1/0 a⏎][item2/0 b⏎][text 1986. A year]'],
  ['lists within', '- a\n  - b\n    1. c\n', '[item/0 a⏎][item/1 b⏎][item1/2 c⏎]'],
  ['emphasis in a list', '* *a* b\n- **c**\n', '[item/0 <em a> b⏎][item/0 <strong c>⏎]'],
  ['a rule', 'a\n---\n* * *\n', '[text a⏎][rule ][rule ]'],
  ['no list', '-a\n5 apples\n-\n12.\n', '[text -a⏎][text 5 apples⏎][text -⏎][text 12.⏎]'],
  ['a block of code', 'a\n```js\nlet *a* = 1;\n\n  b\n```\nc', '[text a⏎][code let *a* = 1;⏎⏎  b⏎][text c]'],
  ['code in code', '````\n```\n````\nc', '[code ```⏎][text c]'],
  ['code with tildes', '~~~\n# a\n~~~\nc', '[code # a⏎][text c]'],
  ['no block of code', '```a``` b\n', '[text ```a``` b⏎]'],
  ['markup and links are text', '<b>a</b> [x](javascript:y) ![z](//e.example/)', '[text <b>a</b> [x](javascript:y) ![z](//e.example/)]'],
  ['escapes', '\\*a\\* \\d 1\\. b', '[text *a* \\d 1. b]'],
  ['scripts without spaces', '这是**重要**的', '[text 这是<strong 重要>的]'],
  ['from right to left', 'این **مهم** است', '[text این <strong مهم> است]'],
  ['a surrogate pair before a mark', '🙂*a*', '[text 🙂<em a>]'],
  ['a long emphasis is none', `*${'x '.repeat(300)}`, `[text *${'x '.repeat(300)}]`],
];

for (const [name, text, want] of rows) {
  test(name, () => {
    // The stop at the end lets every mark be explained.
    assert.equal(String(read([text])), want, 'at once');
    assert.equal(String(read([...text])), want, 'by character');
    for (let at = 1; at < text.length; at += 1) {
      assert.equal(String(read([text.slice(0, at), text.slice(at)])), want, `cut at ${at}`);
    }
  });
}

test('what is held is shown when the stream pauses, and only once', () => {
  for (const [text, want] of [['-', '-'], ['12', '12'], ['a **', '**'], ['a', '']]) {
    const sheet = new Sheet();
    const markdown = new Markdown(sheet);
    markdown.push(text);
    assert.equal(sheet.shown, '');
    markdown.settle();
    assert.equal(sheet.shown, want);
    markdown.push('b');
    assert.equal(sheet.shown, '');
  }
});

test('the work for a character does not grow with the text', () => {
  for (const unit of ['word ', '*a* ', '*', '`', '# a\n', '- a\n', '```\na\n', '\n', '\r', '\\', '_a', '> ', '1. ', '**a *b ']) {
    const sheet = read(unit.repeat(20_000 / unit.length).match(/.{1,7}/gs));
    assert.ok(sheet.calls < 3 * 20_000, `${JSON.stringify(unit)}: ${sheet.calls} calls`);
    for (const { parts } of sheet.blocks) assert.ok(JSON.stringify(parts).length < 60_000);
  }
});

test('a block of code ends that nobody closes', () => {
  const sheet = read(['```\n', ...'x y\n'.repeat(6000).match(/.{1,9}/gs), '*a*']);
  assert.equal(sheet.blocks.at(-1).name, 'text');
  assert.ok(sheet.blocks.filter(({ name }) => name === 'code').length > 3, 'in parts that can go');
});

test('no words are lost, whatever comes', () => {
  let seed = 7;
  const random = (n) => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % n;
  };
  const bits = ['a', 'b ', ' ', '\n', '\r', '*', '**', '_', '`', '``', '```', '# ', '- ', '1. ', '\\', '🙂', 'ש', '---', '~~~', '\t', '字'];
  for (let round = 0; round < 3000; round += 1) {
    const chunks = Array.from({ length: 1 + random(40) }, () => bits[random(bits.length)]);
    const sheet = read([...chunks, '\nend\n```\n~~~\n']);
    const words = (text) => text.replace(/[^\p{L}🙂]/gu, '');
    const shown = String(sheet).replace(/\[(?:text|heading|code|item|rule)|<(?:em|strong|code) /g, '');
    // What follows the mark of a fence is no text.
    const came = chunks.join('').replace(/(?<=(?:^|[\r\n]) {0,3}(?:`{3,}|~{3,}))[^`\r\n]*(?=[\r\n]|$)/g, '');
    if (!/[`~]{3}/.test(came)) assert.equal(words(shown), words(`${came}end`), JSON.stringify(chunks));
    assert.equal(String(read([...chunks.join('')])), String(read(chunks)), JSON.stringify(chunks));
  }
});

test('controls are not shown, and no override turns words around', () => {
  for (const [text, want, why] of [
    ['a\u0000\u0007\u001b[1mb\u007f\u0085c', 'a[1mb\nc', 'controls'],
    ['a\u2028b\u2029c\fd\ve', 'a\nb\nc\nd\ne', 'line ends'],
    ['\u202eevil\u202c', 'evil\u202c', 'an override'],
    ['\u2067שלום\u2069 👩‍👩‍👦 می‌خواهم', '\u2067שלום\u2069 👩‍👩‍👦 می‌خواهم', 'isolates and joiners stay'],
    ['a\tb\r\nc', 'a\tb\r\nc', 'tab and line ends stay'],
    ['\ufeffab', 'ab', 'a byte order mark'],
  ]) {
    assert.equal(clean(text), want, why);
  }
});

test('a voice reads no marks', () => {
  for (const [sentence, want] of [
    ['# A heading', 'A heading'],
    ['- **One** and `two` and _three_.', 'One and two and three.'],
    ['snake_case and 2 * 3', 'snake_case and 2 * 3'],
    ['It is *so*.', 'It is so.'],
  ]) {
    assert.equal(spoken(sentence), want);
  }
});
