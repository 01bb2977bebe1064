// Puts the blocks and spans of the text into the document. Words only ever become
// text nodes.

const tags = { text: 'p', heading: 'h3', code: 'pre', rule: 'hr' };
const longestList = 50; // items, so that the oldest can be dropped

export class Paper {
  #element;
  #block = null;
  #at = null; // the innermost open element
  #tail = null;

  length = 0; // characters in the document, but for the tail

  constructor(element) {
    this.#element = element;
  }

  block(kind, detail) {
    if (kind === 'item') {
      this.#block = this.#item(detail);
      this.#at = this.#block;
      return;
    }
    this.#block = document.createElement(tags[kind]);
    this.#block.dir = kind === 'code' ? 'ltr' : 'auto';
    if (kind === 'heading') this.#block.dataset.level = detail.level;
    this.#at = kind === 'code' ? this.#block.appendChild(document.createElement('code')) : this.#block;
    this.#element.append(this.#block);
  }

  #item({ number, depth }) {
    const tag = number === null ? 'ul' : 'ol';
    let list = this.#element.lastElementChild;
    if (list?.localName !== tag || list.children.length >= longestList) {
      list = document.createElement(tag);
      list.dir = 'auto';
      if (number !== null) list.start = number;
      this.#element.append(list);
    }
    const line = document.createElement('li');
    if (number !== null) line.value = number;
    if (depth > 0) line.dataset.depth = depth;
    return list.appendChild(line);
  }

  text(words) {
    this.length += words.length;
    const last = this.#at.lastChild;
    if (last?.nodeType === Node.TEXT_NODE) last.appendData(words);
    else this.#at.append(words);
  }

  open(tag) {
    this.#at = this.#at.appendChild(document.createElement(tag));
  }

  close() {
    this.#at = this.#at.parentNode;
  }

  unwrap(mark) {
    this.length += mark.length;
    const span = this.#at;
    this.#at = span.parentNode;
    span.replaceWith(mark, ...span.childNodes);
    this.#at.normalize();
  }

  tail(words) {
    this.#tail?.remove();
    this.#tail = null;
    if (words.trim() === '') return;
    // What is held at the beginning of a line belongs to no block yet.
    const beginsLine = this.#at === null || this.#at.textContent.endsWith('\n') || this.#block.localName === 'hr';
    this.#tail = document.createElement(beginsLine ? 'p' : 'span');
    this.#tail.dir = 'auto';
    this.#tail.textContent = words;
    (beginsLine ? this.#element : this.#at).append(this.#tail);
  }
}
