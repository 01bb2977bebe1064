// Looks after a page that nobody sits at: on a wall, over a video, in another
// page. It loads the page again after an update of the server and after a mistake
// of a script, and only while the server answers.

const every = 600_000; // between two looks at the version of the server's page
const afterMistake = 60_000;

export class Kiosk {
  #env;
  #version;
  #away = false;
  #timer = 0;

  // env has unattended, which tells whether nobody sits at the page; fetch,
  // setTimeout and clearTimeout as in a browser; reload; tried, the version for
  // which the page was loaded again, and try, which keeps it over that.
  constructor(version, env) {
    this.#version = version;
    this.#env = env;
    this.#later(every);
  }

  // connected is told at each state whether there is a connection. A server that
  // was away may be another one now.
  connected(present) {
    if (present && this.#away) this.#look();
    this.#away = !present;
  }

  mistake() {
    this.#later(afterMistake, true);
  }

  #later(wait, anyway = false) {
    this.#env.clearTimeout(this.#timer);
    this.#timer = this.#env.setTimeout(() => this.#look(anyway), wait * (0.75 + Math.random() / 2));
  }

  async #look(anyway = false) {
    this.#later(every, anyway);
    if (!this.#env.unattended()) return;
    let current;
    try {
      const answer = await this.#env.fetch('version.txt', { cache: 'no-store', credentials: 'omit' });
      if (!answer.ok) return;
      current = (await answer.text()).trim();
    } catch {
      return;
    }
    // A cache on the way may still have the old page. Once is enough to find out.
    const changed = /^[0-9a-f]{16}$/.test(current) && current !== this.#version && current !== this.#env.tried();
    if (!changed && !anyway) return;
    this.#env.try(current);
    this.#env.reload();
  }
}

// browserEnv is the env of a real page.
export function browserEnv() {
  const root = document.documentElement;
  return {
    unattended: () => root.classList.contains('full') || window.top !== window,
    fetch: (...request) => fetch(...request),
    setTimeout: (...timer) => setTimeout(...timer),
    clearTimeout: (timer) => clearTimeout(timer),
    reload: () => location.reload(),
    // The state of the history entry outlives a reload, and nothing else.
    tried: () => history.state?.tried,
    try: (version) => history.replaceState({ tried: version }, ''),
  };
}
