// Speaks to screen readers: sentences and changes of state, in a polite region.

import { spoken } from './markdown.js';
import { Pace, Sentences } from './sentences.js';

const keep = 6;
const pause = 4000; // a stream that rests so long may not end its sentence

export class Announcer {
  #element;
  #sentences = new Sentences();
  #pace = new Pace();
  #timer = 0;

  constructor(element) {
    this.#element = element;
  }

  hear(text) {
    this.#hear(this.#sentences.push(text));
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#hear(this.#sentences.flush()), pause);
  }

  // forget drops a sentence that will not go on.
  forget() {
    this.#sentences.clear();
    clearTimeout(this.#timer);
  }

  say(words) {
    const line = document.createElement('p');
    line.textContent = words;
    this.#element.append(line);
    while (this.#element.children.length > keep) this.#element.firstElementChild.remove();
  }

  #hear(sentences) {
    for (const sentence of sentences.map(spoken)) {
      if (this.#pace.allows(sentence, performance.now())) this.say(sentence);
    }
  }
}
