// The text in the document. What arrives is gathered and laid out once a frame;
// the oldest blocks go when there are too many.

import { Markdown } from './markdown.js';
import { Paper } from './paper.js';

// What stays on the page: characters, as many while somebody reads further up, to
// disturb them late, and blocks.
const live = { keep: 150_000, keepReading: 450_000, keepBlocks: 3000 };
const fadeBlocks = 60; // of a life that ends, as many are seen to fade
const fadeFor = 4000;
const pause = 1500; // after which marks are shown that the next word would have explained

export class Stream {
  #element;
  #follow;
  #pending = { cleared: false, reborn: false, text: '' };
  #paper;
  #markdown;
  #shown = ''; // what came for what is on the page; null: more came than is there
  #settling = 0;
  #scheduled = false;
  #paused = false;
  #onDraw;
  #bounds;

  constructor(element, follow, onDraw, bounds = live) {
    this.#bounds = bounds;
    this.#element = element;
    this.#follow = follow;
    this.#onDraw = onDraw;
    this.#begin();
  }

  #begin() {
    this.#paper = new Paper(this.#element);
    this.#markdown = new Markdown(this.#paper);
    this.#shown = '';
  }

  get paused() {
    return this.#paused;
  }

  set paused(value) {
    this.#paused = value;
    this.#schedule();
  }

  apply({ cleared, reborn, text }) {
    if (cleared) {
      this.#pending = { cleared: true, reborn: reborn || this.#pending.reborn, text: '' };
    }
    // A hidden or paused page draws nothing for hours and still remembers no more
    // than it would show.
    this.#pending.text = (this.#pending.text + text).slice(-this.#bounds.keepReading);
    this.#schedule();
  }

  #schedule() {
    if (this.#scheduled || this.#paused) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      if (!this.#paused) this.#draw();
    });
  }

  #draw() {
    const { cleared, reborn } = this.#pending;
    let { text } = this.#pending;
    this.#pending = { cleared: false, reborn: false, text: '' };
    if (cleared) {
      // After a reconnection, the history mostly is what is shown, and more. Then
      // only the rest is added, and a reader stays where they were.
      const shown = this.#shown;
      if (!reborn && shown && text.startsWith(shown)) text = text.slice(shown.length);
      else this.#clear(reborn);
    }
    this.#append(text);
    this.#trim();
    this.#onDraw({ cleared, reborn });
    this.#follow.keepUp();
  }

  #append(text) {
    if (text === '') return;
    if (this.#shown !== null) this.#shown += text;
    this.#markdown.push(text);
    clearTimeout(this.#settling);
    this.#settling = setTimeout(() => {
      this.#markdown.settle();
      this.#follow.keepUp();
    }, pause);
  }

  #trim() {
    const { keep, keepReading, keepBlocks } = this.#bounds;
    const bound = this.#follow.following ? keep : keepReading;
    const blocks = this.#element.children;
    let excess = this.#paper.length - bound;
    let count = 0;
    while (count < blocks.length - 1 && (excess > 0 || blocks.length - count > keepBlocks)) {
      excess -= blocks[count].textContent.length;
      count += 1;
    }
    if (count === 0) return;
    const gone = document.createRange();
    gone.setStartBefore(blocks[0]);
    gone.setEndAfter(blocks[count - 1]);
    this.#paper.length -= gone.toString().length;
    this.#shown = null;
    this.#follow.holding(blocks[count], () => gone.deleteContents());
  }

  #clear(reborn) {
    const top = this.#element.getBoundingClientRect();
    const last = [...this.#element.children].slice(-fadeBlocks);
    const offset = last.length > 0 ? last[0].getBoundingClientRect().top : 0;
    this.#element.replaceChildren();
    this.#begin();
    if (reborn && last.length > 0 && !matchMedia('(prefers-reduced-motion: reduce)').matches) {
      fade(last, offset, top);
    }
  }
}

// fade lets a life that has ended be seen going, above the page and outside of it.
function fade(blocks, top, { left, width }) {
  const ghost = document.createElement('div');
  ghost.className = 'ghost';
  ghost.setAttribute('aria-hidden', 'true');
  ghost.style.top = `${top}px`;
  ghost.style.left = `${left}px`;
  ghost.style.width = `${width}px`;
  ghost.append(...blocks);
  document.body.append(ghost);
  setTimeout(() => ghost.remove(), fadeFor);
}
