// Cuts a stream into sentences, for those who listen: a screen reader that is
// handed one word at a time says nothing that can be followed.

const longest = 300;

// A full stop with closing quotes counts once white space follows it; the full
// stops of scripts that write no spaces count at once. A line's end is always one.
const end = /[.!?…]+["'”’»)\]]*\s|[。！？]+["'”’」』]*|[\r\n]/u;

export class Sentences {
  #rest = '';

  // push takes what came and returns the sentences that are now complete.
  push(text) {
    this.#rest += text;
    const done = [];
    for (;;) {
      const cut = this.#cut();
      if (cut < 0) return done;
      add(done, this.#rest.slice(0, cut));
      this.#rest = this.#rest.slice(cut);
    }
  }

  // flush returns what is left: the stream has paused, and may never end it.
  flush() {
    const done = [];
    add(done, this.#rest);
    this.#rest = '';
    return done;
  }

  clear() {
    this.#rest = '';
  }

  #cut() {
    const head = this.#rest.slice(0, longest);
    const found = end.exec(head);
    if (found) return found.index + found[0].length;
    if (this.#rest.length < longest) return -1;
    const space = head.lastIndexOf(' ');
    return space > 0 ? space + 1 : longest;
  }
}

function add(sentences, text) {
  const sentence = text.replace(/\s+/g, ' ').trim();
  if (/[\p{L}\p{N}]/u.test(sentence)) sentences.push(sentence);
}

const perCharacter = 65; // ms in which an unhurried voice says one
const behind = 20_000; // further behind the page, a listener is told of another moment

// Pace leaves sentences out where they come faster than they can be spoken: a
// screen reader says all that it is given, however late.
export class Pace {
  #until = 0;

  allows(sentence, now) {
    const from = Math.max(now, this.#until);
    if (from - now > behind) return false;
    this.#until = from + sentence.length * perCharacter;
    return true;
  }
}
