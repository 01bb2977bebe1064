import { Connection } from '../page/connection.js';

// world stands for the browser: its sockets do what a test says, and its clock runs
// when a test lets it.
export function world({ position = null, probe = () => new Response('ok'), online = true } = {}) {
  const w = { sockets: [], sources: [], states: [], clock: 0, slept: 0, timers: new Map(), position, probes: 0 };
  let id = 0;
  const env = {
    WebSocket: class extends EventTarget {
      constructor(url) {
        super();
        this.url = url;
        w.sockets.push(this);
      }
      open() {
        this.dispatchEvent(new Event('open'));
      }
      say(data) {
        this.dispatchEvent(Object.assign(new Event('message'), { data }));
      }
      close(code = 1006, reason = '') {
        this.closed = true;
        this.dispatchEvent(Object.assign(new Event('close'), { code, reason }));
      }
    },
    EventSource: class extends EventTarget {
      constructor(url) {
        super();
        this.url = url;
        w.sources.push(this);
      }
      tell(kind, data) {
        this.dispatchEvent(Object.assign(new Event(kind), { data }));
      }
      close() {
        this.closed = true;
      }
    },
    fetch: async (url) => {
      w.probes += 1;
      w.probed = url.href;
      return probe();
    },
    now: () => w.clock,
    today: () => 1e12 + w.clock + w.slept,
    setTimeout: (f, ms) => {
      w.timers.set((id += 1), { f, at: w.clock + ms });
      return id;
    },
    clearTimeout: (timer) => w.timers.delete(timer),
    online: () => w.online ?? online,
  };
  w.connection = new Connection({
    page: 'https://host.example/',
    onData: (data) => data === 'live',
    onState: (state) => w.states.push(state),
    position: () => w.position,
    env,
  });
  w.pass = (ms) => {
    w.clock += ms;
    for (const [key, { f, at }] of [...w.timers]) {
      if (at <= w.clock && w.timers.delete(key)) f();
    }
    w.connection.tell();
  };
  w.kind = () => w.states.at(-1).kind;
  w.fail = async (code = 1006, reason = '') => {
    w.sockets.at(-1).close(code, reason);
    await new Promise(setImmediate);
  };
  w.connection.open();
  return w;
}
