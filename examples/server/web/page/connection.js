// The connection to the server, kept up for as long as the page is open.

import { comeBack, delay, refusedDelay, retryAfter } from './backoff.js';
import { endpoint, EventSocket, eventsURL } from './events.js';

const stable = 10_000; // open for so long, a connection counts as a success
const quiet = 15_000; // silence after which nobody seems to publish
const renewal = 180_000; // silence after which the connection is not believed any more
const probeTimeout = 5000;
const opening = 30_000; // for a connection to open: a network that is gone says nothing
const again = 5000; // between two attempts that a change of the network asks for
const doubtful = 30_000; // silence after which a page that is shown again does not trust its connection
const asleep = 10_000; // that the calendar went on and the other clock did not
const goingAway = 1001;
const restart = 60_000; // how long a server that said that it goes may take to be back
const fallback = 2; // upgrades that fail, though the server would admit them, until events are tried
const upgradeAgain = 300_000; // on events, until another upgrade is tried
const starting = 2; // failures that a server is spared that has yet to start: everybody comes back at once

// socketURL says where the server is, see endpoint.
export function socketURL(page, room, pos) {
  const url = endpoint('ws', page, room, pos);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

export class Connection {
  #env;
  #page;
  #room;
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
  #begunAt = 0;
  #begunOn = 0;
  #heardOn = 0; // #heardAt by the calendar: the other clock stands still while a phone sleeps
  #lost = null;
  #offline = false; // the browser said so, and nothing was heard since
  #asking = null; // the socket whose failure is being asked about
  #goneAt = -Infinity; // when the server said that it goes
  #noUpgrade = 0; // upgrades in a row that failed, though the server would have admitted them
  #upgradeAt = null; // on events: when an upgrade is tried again; else null
  #probe = null; // the socket of that attempt

  // position returns where to resume, or null. env has WebSocket, EventSource,
  // fetch, now, today (milliseconds by the calendar), setTimeout, clearTimeout and online, all
  // as in a browser.
  constructor({ page, room = null, onData, onState, position, env }) {
    this.#page = page;
    this.#room = room;
    this.#onData = onData;
    this.#onState = onState;
    this.#position = position;
    this.#env = env;
  }

  // open begins an attempt now, unless one is under way. An open connection is
  // replaced: whoever calls this knows of a change after which it may be dead, and
  // a dead one says nothing.
  open() {
    if (this.#env.online()) this.#offline = false;
    if (this.#socket && this.#since(this.#begunAt, this.#begunOn) < again) {
      // Not at once: a network that comes and goes would use up the attempts that
      // the server allows. Until then the connection may still prove itself.
      this.#renewAt = Math.min(this.#renewAt, this.#begunAt + again);
      return;
    }
    this.#replace('connecting');
  }

  // wake is for a page that is shown again: its connection may have ended while
  // nobody looked, or while the machine slept.
  wake() {
    if (this.#openedAt === null || this.#since(this.#heardAt, this.#heardOn) >= doubtful) this.open();
    else this.tell();
  }

  // offline is for a browser that says that it has no network. What is heard
  // after that proves otherwise: a machine still reaches a server of its own.
  offline() {
    this.#offline = true;
    this.tell();
  }

  #today() {
    return (this.#env.today ?? this.#env.now)();
  }

  // since returns how long ago both moments were, by the clock that knows best.
  #since(at, on) {
    return Math.max(this.#env.now() - at, this.#today() - on);
  }

  #hear() {
    this.#heardAt = this.#env.now();
    this.#heardOn = this.#today();
    this.#offline = false;
  }

  // replace gives the connection back, if there is one, and begins another.
  #replace(reason) {
    const old = this.#socket;
    this.#socket = null;
    old?.close();
    if (reason === 'connecting') this.#heard = false;
    this.#begin(reason);
  }

  #begin(reason) {
    this.#begunAt = this.#env.now();
    this.#begunOn = this.#today();
    this.#env.clearTimeout(this.#waiting);
    this.#waiting = 0;
    this.#reason = reason;
    this.#openedAt = null;
    const socket = this.#connect();
    this.#socket = socket;
    socket.addEventListener('open', () => {
      if (socket !== this.#socket) return;
      this.#openedAt = this.#env.now();
      if (this.#upgradeAt === null) this.#noUpgrade = 0;
      if (reason === 'connecting') this.#hear();
      else this.#heardOn = this.#today();
      this.#offline = false;
      this.#renewLater();
      this.tell();
    });
    socket.addEventListener('message', ({ data }) => {
      if (socket !== this.#socket) return;
      this.#hear();
      this.#renewLater();
      this.#heard = this.#onData(data) || this.#heard;
      this.tell();
    });
    socket.addEventListener('close', ({ code, reason }) => {
      if (socket === this.#socket) this.#closed(code, reason);
    });
    this.tell();
  }

  // connect opens a WebSocket, or events in a network that lets none pass. From
  // time to time it tries a WebSocket there, too.
  #connect() {
    const now = this.#env.now();
    if (this.#noUpgrade >= fallback && this.#env.EventSource) {
      this.#upgradeAt ??= now + upgradeAgain;
      if (now < this.#upgradeAt) return new EventSocket(this.#env.EventSource, eventsURL(this.#page, this.#room, this.#position()));
      this.#noUpgrade = fallback - 1; // one attempt
    }
    this.#upgradeAt = null;
    return new this.#env.WebSocket(socketURL(this.#page, this.#room, this.#position()));
  }

  // upgrade tries a WebSocket while the events go on, and changes to one if it
  // opens. That one is new: it begins where the events were.
  #upgrade() {
    this.#upgradeAt = this.#env.now() + upgradeAgain;
    this.#probe?.close();
    const probe = new this.#env.WebSocket(socketURL(this.#page, this.#room, this.#position()));
    this.#probe = probe;
    probe.addEventListener('open', () => {
      probe.close();
      if (probe !== this.#probe || this.#upgradeAt === null || this.#openedAt === null) return;
      this.#probe = null;
      this.#noUpgrade = 0;
      this.#replace('quiet');
    });
  }

  #renewLater() {
    this.#renewAt = this.#env.now() + renewal + delay(Infinity);
  }

  // tell reports the state as it is now; the page calls it every second for what
  // only time changes.
  tell() {
    const now = this.#env.now();
    const lost = this.#today() - now; // what the clock missed in sleep, but for a constant
    const slept = this.#lost !== null && lost - this.#lost >= asleep;
    this.#lost = lost;
    if (this.#openedAt !== null && slept) {
      this.open();
      return;
    }
    // A connection that has been silent for long is replaced. It never sends, so
    // where the network went away and came back, it would wait on a dead one for
    // ever, and that looks just like a mind that says nothing.
    if (this.#openedAt !== null && now >= this.#renewAt) {
      this.#replace('quiet');
      return;
    }
    if (this.#openedAt !== null && this.#upgradeAt !== null && now >= this.#upgradeAt) this.#upgrade();
    if (this.#socket && this.#openedAt === null && this.#asking !== this.#socket && now - this.#begunAt >= opening) {
      this.#socket.close();
      this.#closed(1006);
    }
    const state = { kind: this.#reason, wait: Math.max(0, this.#retryAt - now), quietFor: 0 };
    if (this.#openedAt !== null || this.#reason === 'quiet') {
      state.quietFor = now - this.#heardAt;
      state.kind = state.quietFor >= quiet ? 'quiet' : this.#heard ? 'live' : 'listening';
    }
    if (this.#offline) state.kind = 'offline';
    this.#onState(state);
  }

  async #closed(code, reason) {
    const socket = this.#socket;
    if (this.#asking === socket) return;
    const openedAt = this.#openedAt;
    this.#openedAt = null;
    if (openedAt !== null && this.#env.now() - openedAt >= stable) this.#failures = 0;
    let verdict = { kind: 'lost', wait: delay(this.#failures) };
    if (openedAt === null) {
      this.#asking = socket;
      verdict = await this.#ask();
      if (this.#asking === socket) this.#asking = null;
      if (socket !== this.#socket) return; // replaced meanwhile
      if (this.#upgradeAt === null && this.#env.EventSource) {
        this.#noUpgrade = verdict.admitted ? this.#noUpgrade + 1 : 0;
        if (verdict.admitted) verdict.wait = delay(this.#failures);
      }
    }
    if (openedAt !== null && code === goingAway) verdict = { kind: 'restarting', wait: comeBack(reason) ?? delay(this.#failures + starting) };
    if (verdict.kind === 'restarting') this.#goneAt = this.#env.now();
    else if (verdict.kind === 'unreachable' && this.#env.now() - this.#goneAt < restart) verdict.kind = 'restarting';
    this.#failures += 1;
    this.#socket = null;
    this.#reason = verdict.kind;
    this.#retryAt = this.#env.now() + verdict.wait;
    this.#waiting = this.#env.setTimeout(() => this.#replace('connecting'), verdict.wait);
    this.tell();
  }

  // ask finds out why an upgrade failed. A browser hides the answer's status from
  // scripts, so the same address is asked once more, without an upgrade: the
  // server answers with the refusal that an upgrade would get now, and counts
  // nothing.
  async #ask() {
    const patience = delay(this.#failures);
    const refused = refusedDelay(this.#failures);
    let answer;
    try {
      answer = await this.#env.fetch(endpoint('ws', this.#page, this.#room, null), {
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
    const admitted = answer.status === 426; // something between us lets no upgrade pass
    return { kind: answer.status === 403 ? 'blocked' : 'refused', wait: refused, admitted };
  }
}
