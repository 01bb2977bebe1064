// Light Markdown as it comes: headings, lists, emphasis and code. What it reads
// goes to out at once, and no text is read twice, but for a few characters whose
// meaning the next one decides. Neither HTML nor a link is anything but text.
//
// out has: block(kind, detail), which begins a block; text(words); open(tag) and
// close() of a span; unwrap(mark), which takes the span that is open back and puts
// its mark before its words; tail(words), which shows words for now.

import { breakAt } from './blocks.js';

const emptyLines = 2; // in a row, that are shown
const longestHead = 40; // of a line, of which it is not known what it is
const longestCode = 16_000; // characters after which a block of code ends that nobody closes
const longestPre = 4000; // so that the oldest can be dropped
const longestSpan = 400; // characters after which an emphasis that nobody closes is none

const fence = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const heading = /^ {0,3}(#{1,6})[ \t]+(?=\S)/;
const item = /^([ \t]*)(?:[-*+]|(\d{1,3})[.)])[ \t]+(?=\S)/;
const rule = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
// The beginnings of those.
const undecided = /^[ \t]*(?:#{1,6}[ \t]*|[-*+_](?:[ \t]*[-*_])*[ \t]*|\d{1,3}(?:[.)][ \t]*)?|`{1,2}|~{1,2})?$/;

const wordly = /[\p{L}\p{N}]/u;
const spaceless = /[\p{sc=Han}\p{sc=Hira}\p{sc=Kana}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmer}\p{sc=Mymr}]/u;
const blank = /^\s?$/;

export class Markdown {
  #out;
  #head = ''; // of a line of which it is not known what it is
  #line = false; // whether a line is open of which it is known
  #before = ''; // what the open block holds
  #spans = []; // open ones: mark and where it began
  #held = ''; // marks whose meaning the next character decides
  #last = ''; // character before
  #at = 0; // characters of the open block that are shown
  #code = null; // the open block of code: its fence and how much it holds
  #empty = 0;
  #cr = false; // the last character was a carriage return

  constructor(out) {
    this.#out = out;
  }

  push(text) {
    if (text === '') return;
    if (this.#cr && text.startsWith('\n')) text = text.slice(1);
    if (text === '') {
      this.#cr = false;
      return;
    }
    this.#cr = text.endsWith('\r');
    this.#out.tail('');
    const lines = text.split(/\r\n|[\r\n]/);
    const open = lines.pop();
    for (const line of lines) {
      this.#more(line);
      this.#end();
    }
    this.#more(open);
  }

  // settle shows what is held, since the stream has paused.
  settle() {
    this.#out.tail(this.#head + this.#held);
  }

  #more(text) {
    if (text === '') return;
    if (this.#line) {
      this.#body(text);
      return;
    }
    this.#head += text;
    if (this.#isUndecided(this.#head)) return;
    const head = this.#head;
    this.#head = '';
    this.#line = true;
    if (this.#code) this.#body(head);
    else this.#begin(head);
  }

  #isUndecided(head) {
    if (head.length > longestHead) return false;
    if (this.#code) return /^ {0,3}[`~]*[ \t]*$/.test(head);
    return undecided.test(head) || fence.test(head);
  }

  #begin(head) {
    this.#empty = 0;
    let found = heading.exec(head);
    if (found) {
      this.#block('heading', { level: found[1].length });
      this.#body(head.slice(found[0].length));
      return;
    }
    found = item.exec(head);
    if (found) {
      const depth = Math.min(3, Math.floor(found[1].replace(/\t/g, '  ').length / 2));
      this.#block('item', { number: found[2] === undefined ? null : Number(found[2]), depth });
      this.#body(head.slice(found[0].length));
      return;
    }
    this.#block('text');
    this.#body(head);
  }

  #block(kind, detail = {}) {
    this.#out.block(kind, detail);
    this.#before = '';
    this.#last = '';
    this.#at = 0;
  }

  // end ends a line.
  #end() {
    const head = this.#head;
    this.#head = '';
    if (this.#code) {
      this.#endOfCode(head);
    } else if (this.#line) {
      this.#inline('', '\n');
      this.#unwrap(0);
      this.#out.text('\n');
    } else if (head.trim() === '') {
      this.#empty += 1;
      if (this.#empty <= emptyLines) {
        this.#block('text');
        this.#out.text('\n');
      }
    } else if (fence.test(head)) {
      this.#empty = 0;
      this.#code = { fence: fence.exec(head)[1], size: 0 };
      this.#block('code');
    } else if (rule.test(head)) {
      this.#empty = 0;
      this.#block('rule');
    } else {
      this.#line = true;
      this.#begin(head);
      this.#end();
    }
    this.#line = false;
  }

  #endOfCode(head) {
    const closes = head.trim();
    if (closes.startsWith(this.#code.fence) && closes === this.#code.fence[0].repeat(closes.length)) {
      this.#code = null;
      return;
    }
    this.#body(`${head}\n`);
    if (this.#code.size > longestCode) this.#code = null;
    else if (this.#at > longestPre) this.#block('code');
  }

  #body(text) {
    if (this.#code) {
      this.#code.size += text.length;
      for (; text !== ''; text = text.slice(longestPre)) {
        if (this.#at > 2 * longestPre) this.#block('code');
        this.#say(text.slice(0, longestPre));
      }
      return;
    }
    while (text !== '') {
      const cut = breakAt(this.#before, text);
      const piece = cut < 0 ? text : text.slice(0, cut);
      this.#before += piece;
      this.#inline(piece, cut < 0 ? '' : '\n');
      if (cut < 0) return;
      this.#unwrap(0);
      this.#block('text');
      text = text.slice(cut);
    }
  }

  // inline reads a piece of a line. next is a line end if nothing comes after it.
  #inline(piece, next) {
    let text = this.#held + piece;
    this.#held = '';
    while (text !== '') {
      const from = text.search(this.#spans.at(-1)?.mark[0] === '`' ? /`/ : /[*_`\\]/);
      if (from < 0) break;
      this.#say(text.slice(0, from));
      const run = /^(?:\*+|_+|`+|\\)/.exec(text.slice(from))[0];
      text = text.slice(from + run.length);
      if (text === '' && next === '' && run.length < longestHead) {
        this.#held = run;
        return;
      }
      const after = text === '' ? next : String.fromCodePoint(text.codePointAt(0));
      if (run === '\\') {
        const escaped = /^[*_`\\#+.()-]/.test(text);
        this.#say(escaped ? after : run);
        if (escaped) text = text.slice(1);
      } else if (run[0] === '`') {
        this.#ticks(run, after);
      } else {
        this.#marks(run, after);
      }
    }
    this.#say(text);
  }

  #say(text) {
    if (text === '') return;
    this.#out.text(text);
    this.#at += text.length;
    this.#last = [...text.slice(-2)].at(-1);
    if (this.#spans.length > 0 && this.#at - this.#spans[0].from > longestSpan) this.#unwrap(0);
  }

  #ticks(run, after) {
    if (this.#spans.at(-1)?.mark === run) this.#close();
    else if (this.#spans.at(-1)?.mark[0] !== '`' && run.length < 3 && after !== '\n') this.#open(run, 'code');
    else this.#say(run);
  }

  #marks(run, after) {
    let left = run;
    if (!blank.test(this.#last) && (run[0] === '*' || !wordly.test(after))) left = this.#closing(run);
    const begins =
      !blank.test(after) &&
      (!wordly.test(this.#last) || (run[0] === '*' && spaceless.test(this.#last))) &&
      !this.#spans.some(({ mark }) => mark.length === left.length || left.length > 2);
    if (left === '') return;
    if (!begins || left.length > 3) {
      this.#say(left);
      return;
    }
    if (left.length > 1) this.#open(left[0].repeat(2), 'strong');
    if (left.length !== 2) this.#open(left[0], 'em');
  }

  // closing closes what the run closes and returns the rest of it.
  #closing(run) {
    let left = run;
    for (;;) {
      const same = this.#spans.findLastIndex(({ mark }) => mark === left);
      const within = this.#spans.at(-1);
      if (left !== '' && same >= 0) {
        this.#unwrap(same + 1);
        this.#close();
        return '';
      }
      if (!within || left.length < 3 || within.mark[0] !== left[0]) return left;
      this.#close();
      left = left.slice(within.mark.length);
    }
  }

  #open(mark, tag) {
    this.#out.open(tag);
    this.#spans.push({ mark, from: this.#at });
  }

  #close() {
    this.#spans.pop();
    this.#out.close();
  }

  // unwrap takes back all open spans from the given one on: their marks were text.
  #unwrap(from) {
    while (this.#spans.length > from) this.#out.unwrap(this.#spans.pop().mark);
  }
}

// spoken returns a sentence without the marks that a voice would read out.
export function spoken(sentence) {
  return sentence
    .replace(/^\s*(?:#{1,6}\s+|[-*+]\s+|[`~]{3,}\w*\s*)/, '')
    .replace(/(?<![\p{L}\p{N}])[*_`]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}(?![\p{L}\p{N}])/gu, '');
}
