// Server-sent events in the shape of a WebSocket, for networks that let no
// WebSocket pass.

// eventsURL says where the events are: beside the page.
export function eventsURL(page, pos) {
  const url = new URL('events', page);
  url.search = pos === null ? '' : `?since=${encodeURIComponent(pos)}`;
  return url.href;
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
