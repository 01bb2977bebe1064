// Cuts an answer into its lines, as they come.

export async function* lines(body) {
  const text = new TextDecoder();
  let rest = '';
  const reader = body.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    rest += done ? text.decode() : text.decode(value, { stream: true });
    const whole = rest.split('\n');
    rest = whole.pop();
    yield* whole;
    if (done) break;
  }
  if (rest !== '') yield rest;
}
