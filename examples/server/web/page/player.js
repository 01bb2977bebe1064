// Plays a life again: hands out its frames when their time has come, in their own
// time or faster.

const atOnce = 5000; // frames in one step, so that the page goes on answering

export class Player {
  #now;
  #frames = [];
  #next = 0;
  #complete = false;
  #failed = false;
  #speed = 1;
  #paused = false;
  #at = 0; // ms into the life, as of #since
  #since;

  // now is a clock in ms, which goes on while the page is hidden.
  constructor(now) {
    this.#now = now;
    this.#since = now();
  }

  // add takes the next frame and when it was said: ms since 1970, or null where
  // that is not known. A time that goes back counts as that of the frame before.
  add(frame, time) {
    const first = this.#frames[0]?.time ?? time ?? 0;
    const before = this.#frames.at(-1)?.time ?? first;
    this.#frames.push({ frame, time: Math.max(before, time ?? before) });
  }

  // complete says that all frames are here, and fail that the others will not come.
  complete() {
    this.#complete = true;
  }

  fail() {
    this.#failed = true;
  }

  get speed() {
    return this.#speed;
  }

  // speed is 1 for the life's own time, and Infinity for all at once.
  set speed(speed) {
    this.#advance();
    this.#speed = speed;
  }

  get paused() {
    return this.#paused;
  }

  set paused(paused) {
    this.#advance();
    this.#paused = paused;
  }

  restart() {
    this.#next = 0;
    this.#at = 0;
    this.#since = this.#now();
    this.#paused = false;
  }

  // length is how long the life lasted, as far as it is here.
  get length() {
    return this.#frames.length === 0 ? 0 : this.#frames.at(-1).time - this.#frames[0].time;
  }

  // take returns the frames whose time has come, and how far the replay is.
  take() {
    this.#advance();
    const due = [];
    const start = this.#frames[0]?.time ?? 0;
    while (!this.#paused && this.#next < this.#frames.length && due.length < atOnce) {
      const { frame, time } = this.#frames[this.#next];
      if (this.#speed !== Infinity && time - start > this.#at) break;
      due.push(frame);
      this.#next += 1;
      if (this.#speed === Infinity) this.#at = time - start;
    }
    return { due, kind: this.#kind(), at: Math.min(this.#at, this.length), all: this.length };
  }

  #kind() {
    const ended = this.#next >= this.#frames.length;
    if (ended && this.#complete) return 'ended';
    if (ended && this.#failed) return 'failed';
    if (this.#paused) return 'paused';
    return ended ? 'loading' : 'playing';
  }

  #advance() {
    const now = this.#now();
    const passed = now - this.#since;
    this.#since = now;
    if (this.#paused || this.#speed === Infinity) return;
    // What is not here yet cannot be played: the time waits for it.
    const limit = this.#frames.length === 0 ? 0 : this.length;
    this.#at = Math.min(this.#at + passed * this.#speed, Math.max(limit, this.#at));
  }
}
