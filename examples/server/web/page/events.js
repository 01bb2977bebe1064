// Server-sent events in the shape of a WebSocket, for networks that let no
// WebSocket pass.

// endpoint returns the URL of ws or events: beside the page, or, of the page of a
// room, r/ROOM/, beside the list of all rooms. pos is where to resume, or null.
export function endpoint(name, page, room, pos) {
  const url = new URL(room === null ? name : `../../${name}`, page);
  const query = [];
  if (room !== null) query.push(`room=${encodeURIComponent(room)}`);
  if (pos !== null) query.push(`since=${encodeURIComponent(pos)}`);
  url.search = query.join('&');
  return url;
}

// eventsURL says where the events are, see endpoint.
export function eventsURL(page, room, pos) {
  return endpoint('events', page, room, pos).href;
}

export class EventSocket {
  #source;
  #listeners = { open: [], message: [], close: [] };

  // EventSource is the class of the browser.
  constructor(EventSource, url) {
    const source = new EventSource(url);
    this.#source = source;
    source.addEventListener('open', () => this.#tell('open', {}));
    source.addEventListener('message', ({ data }) => this.#tell('message', { data }));
    source.addEventListener('close', ({ data }) => this.#end(JSON.parse(data)));
    // The browser would connect again by itself, but knows neither when nor why.
    source.addEventListener('error', () => this.#end({ code: 1006, reason: '' }));
  }

  addEventListener(kind, listener) {
    this.#listeners[kind].push(listener);
  }

  close() {
    this.#source.close();
  }

  #end(why) {
    this.#source.close();
    this.#tell('close', why);
  }

  #tell(kind, event) {
    for (const listener of this.#listeners[kind]) listener(event);
  }
}
