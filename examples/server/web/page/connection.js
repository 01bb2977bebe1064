// The connection to the server, kept up for as long as the page is open.

import { delay, refusedDelay, retryAfter } from './backoff.js';

const stable = 10_000; // open for so long, a connection counts as a success
const quiet = 15_000; // silence after which nobody seems to publish
const renewal = 180_000; // silence after which the connection is not believed any more
const probeTimeout = 5000;
const goingAway = 1001;
const restart = 60_000; // how long a server that said that it goes may take to be back
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
  #renewAt = 0;
  #goneAt = -Infinity; // when the server said that it goes

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
    this.#heard = false;
    this.#begin('connecting');
  }

  #begin(reason) {
    this.#env.clearTimeout(this.#waiting);
    this.#waiting = 0;
    this.#reason = reason;
    this.#openedAt = null;
    const socket = new this.#env.WebSocket(socketURL(this.#page, this.#position()));
    this.#socket = socket;
    socket.addEventListener('open', () => {
      if (socket !== this.#socket) return;
      this.#openedAt = this.#env.now();
      if (reason === 'connecting') this.#heardAt = this.#openedAt;
      this.#renewLater();
      this.tell();
    });
    socket.addEventListener('message', ({ data }) => {
      if (socket !== this.#socket) return;
      this.#heardAt = this.#env.now();
      this.#renewLater();
      this.#heard = this.#onData(data) || this.#heard;
      this.tell();
    });
    socket.addEventListener('close', ({ code }) => {
      if (socket === this.#socket) this.#closed(code);
    });
    this.tell();
  }

  #renewLater() {
    this.#renewAt = this.#env.now() + renewal + delay(Infinity);
  }

  // renew replaces a connection that has been silent for long. It never sends, so
  // where the network went away and came back, it would wait on a dead one for ever,
  // and that looks just like a mind that says nothing.
  #renew() {
    const old = this.#socket;
    this.#socket = null;
    old.close();
    this.#begin('quiet');
  }

  // tell reports the state as it is now; the page calls it every second for what
  // only time changes.
  tell() {
    const now = this.#env.now();
    if (this.#openedAt !== null && now >= this.#renewAt) {
      this.#renew();
      return;
    }
    const state = { kind: this.#reason, wait: Math.max(0, this.#retryAt - now), quietFor: 0 };
    if (this.#openedAt !== null || this.#reason === 'quiet') {
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
    if (verdict.kind === 'restarting') this.#goneAt = this.#env.now();
    else if (verdict.kind === 'unreachable' && this.#env.now() - this.#goneAt < restart) verdict.kind = 'restarting';
    this.#failures += 1;
    this.#socket = null;
    this.#reason = verdict.kind;
    this.#retryAt = this.#env.now() + verdict.wait;
    this.#waiting = this.#env.setTimeout(() => this.open(), verdict.wait);
    this.tell();
  }

  // ask finds out why an upgrade failed. A browser hides the answer's status from
  // scripts, so the same address is asked once more, without an upgrade: the rate
  // limit answers that alike. A request that it refuses is not counted and puts
  // nothing off; one that it lets pass is an attempt, which is why nobody asks
  // again soon after that.
  async #ask() {
    const patience = delay(this.#failures);
    const refused = refusedDelay(this.#failures);
    let answer;
    try {
      answer = await this.#env.fetch(new URL('ws', this.#page), {
        cache: 'no-store',
        credentials: 'omit',
        redirect: 'manual',
        signal: AbortSignal.timeout(probeTimeout),
      });
    } catch {
      // Only now: a machine without a network still reaches a server of its own.
      if (!this.#env.online()) return { kind: 'offline', wait: refused };
      return { kind: 'unreachable', wait: patience };
    }
    const told = retryAfter(answer.headers.get('Retry-After'));
    if (answer.status >= 500) return { kind: 'restarting', wait: Math.max(patience, told ?? 0) };
    if (answer.status === 429) return { kind: 'limited', wait: told === null ? refused : told + delay(0) };
    return { kind: answer.status === 403 ? 'blocked' : 'refused', wait: refused };
  }
}
