// Removes from a text what no reader may see: control characters, and marks that
// turn the order of other people's words around.

// Every line end of another system. A carriage return stays: only the text after
// it shows whether it is a line end alone or half of one.
const lineEnds = /[\v\f\u0085\u2028\u2029]/g;

// Controls except the tab, the line feed and the carriage return; the overrides
// of direction; annotations; and the byte order mark. Marks that scripts need
// stay: joiners, embeddings and isolates, which end with their paragraph.
const unseen = /[\0-\x08\x0e-\x1f\x7f-\x9f\u202d\u202e\u206a-\u206f\ufeff\ufff9-\ufffb]/g;

export function clean(text) {
  return text.replace(lineEnds, '\n').replace(unseen, '');
}
