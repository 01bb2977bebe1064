// The connection to the server, kept up for as long as the page is open.

import { delay, refusedDelay, retryAfter } from './backoff.js';

const stable = 10_000; // open for so long, a connection counts as a success
const quiet = 15_000; // silence after which nobody seems to publish
const probeTimeout = 5000;
const goingAway = 1001;
const starting = 2; // failures that a server is spared that has yet to start: everybody comes back at once

// socketURL says where the server is: beside the page.
export function socketURL(page, pos) {
  const url = new URL('ws', page);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  url.search = pos === null ? '' : `?since=${encodeURIComponent(pos)}`;
  return url.href;
}

export class Connection {
  #env;
  #page;
  #onData;
  #onState;
  #position;
  #failures = 0;
  #socket = null;
  #waiting = 0; // timer of the next attempt
  #retryAt = 0;
  #reason = 'connecting';
  #openedAt = null;
  #heardAt = 0;
  #heard = false;

  // position returns where to resume, or null. env has WebSocket, fetch, now,
  // setTimeout, clearTimeout and online, all as in a browser.
  constructor({ page, onData, onState, position, env }) {
    this.#page = page;
    this.#onData = onData;
    this.#onState = onState;
    this.#position = position;
    this.#env = env;
  }

  // open begins an attempt now, unless one is under way.
  open() {
    if (this.#socket) return;
    this.#env.clearTimeout(this.#waiting);
    this.#waiting = 0;
    this.#reason = 'connecting';
    this.#openedAt = null;
    this.#heard = false;
    const socket = new this.#env.WebSocket(socketURL(this.#page, this.#position()));
    this.#socket = socket;
    socket.addEventListener('open', () => {
      this.#openedAt = this.#heardAt = this.#env.now();
      this.tell();
    });
    socket.addEventListener('message', ({ data }) => {
      this.#heardAt = this.#env.now();
      this.#heard = this.#onData(data) || this.#heard;
      this.tell();
    });
    socket.addEventListener('close', ({ code }) => this.#closed(code));
    this.tell();
  }

  // tell reports the state as it is now; the page calls it every second for what
  // only time changes.
  tell() {
    const now = this.#env.now();
    const state = { kind: this.#reason, wait: Math.max(0, this.#retryAt - now), quietFor: 0 };
    if (this.#openedAt !== null) {
      state.quietFor = now - this.#heardAt;
      state.kind = state.quietFor >= quiet ? 'quiet' : this.#heard ? 'live' : 'listening';
    }
    this.#onState(state);
  }

  async #closed(code) {
    const openedAt = this.#openedAt;
    this.#openedAt = null;
    if (openedAt !== null && this.#env.now() - openedAt >= stable) this.#failures = 0;
    let verdict = { kind: 'lost', wait: delay(this.#failures) };
    if (openedAt === null) verdict = await this.#ask();
    else if (code === goingAway) verdict = { kind: 'restarting', wait: delay(this.#failures + starting) };
    this.#failures += 1;
    this.#socket = null;
    this.#reason = verdict.kind;
    this.#retryAt = this.#env.now() + verdict.wait;
    this.#waiting = this.#env.setTimeout(() => this.open(), verdict.wait);
    this.tell();
  }

  // ask finds out why an upgrade failed. A browser hides the answer's status from
  // scripts, so the health check is asked instead, which no limit counts.
  async #ask() {
    const patience = delay(this.#failures);
    let answer;
    try {
      answer = await this.#env.fetch(new URL('healthz', this.#page), {
        cache: 'no-store',
        credentials: 'omit',
        signal: AbortSignal.timeout(probeTimeout),
      });
    } catch {
      // Only now: a machine without a network still reaches a server of its own.
      if (!this.#env.online()) return { kind: 'offline', wait: refusedDelay(this.#failures) };
      return { kind: 'unreachable', wait: patience };
    }
    if (answer.status >= 500) return { kind: 'restarting', wait: patience };
    const told = retryAfter(answer.headers.get('Retry-After'));
    if (told !== null) return { kind: 'limited', wait: told + delay(0) };
    const kind = answer.status === 403 ? 'blocked' : 'refused';
    return { kind, wait: refusedDelay(this.#failures) };
  }
}
