// Keeps the newest words in view, until the reader scrolls up to read.

const atEnd = 2; // pixels from the end, which a scaled screen never hits exactly
const near = 96; // pixels from the end at which whoever goes down has come back

export class Follow {
  #following = true;
  #top = 0;
  #drift = 0; // pixels from where the reader's line should be: the browser scrolls to whole ones
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
    history.scrollRestoration = 'manual';
    addEventListener('scroll', () => this.#scrolled(), { passive: true });
    addEventListener('resize', () => this.keepUp());
  }

  get following() {
    return this.#following;
  }

  keepUp() {
    if (!this.#following) return;
    scrollTo({ top: document.documentElement.scrollHeight, behavior: 'instant' });
    this.#top = scrollY;
  }

  resume() {
    this.#set(true);
    this.keepUp();
  }

  // holding runs change, which removes what is above element, and leaves element
  // where it is on the screen.
  holding(element, change) {
    const place = element.getBoundingClientRect().top - this.#drift;
    change();
    if (this.#following) return;
    scrollBy({ top: element.getBoundingClientRect().top - place, behavior: 'instant' });
    this.#drift = element.getBoundingClientRect().top - place;
    this.#top = scrollY;
  }

  #scrolled() {
    const left = document.documentElement.scrollHeight - innerHeight - scrollY;
    if (scrollY !== this.#top) this.#drift = 0;
    // Only going up is a wish to read: text that came meanwhile also makes the
    // end recede. However little it is: a line at a time is how a keyboard goes.
    if (left <= atEnd) this.#set(true);
    else if (scrollY < this.#top) this.#set(false);
    else if (left <= near && scrollY > this.#top) this.#set(true);
    this.#top = scrollY;
  }

  #set(following) {
    if (following === this.#following) return;
    this.#following = following;
    this.#onChange(following);
  }
}
