// Keeps the newest words in view, until the reader scrolls up to read.

const near = 96; // pixels from the end that still count as the end

export class Follow {
  #following = true;
  #top = 0;
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
    const before = element.getBoundingClientRect().top;
    change();
    if (this.#following) return;
    scrollBy({ top: element.getBoundingClientRect().top - before, behavior: 'instant' });
    this.#top = scrollY;
  }

  #scrolled() {
    const left = document.documentElement.scrollHeight - innerHeight - scrollY;
    // Only going up is a wish to read: text that came meanwhile also makes the
    // end recede.
    if (left <= near) this.#set(true);
    else if (scrollY < this.#top) this.#set(false);
    this.#top = scrollY;
  }

  #set(following) {
    if (following === this.#following) return;
    this.#following = following;
    this.#onChange(following);
  }
}
