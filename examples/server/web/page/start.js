// Starts the page again if its scripts did not come: a server that is restarted
// between the page and its parts leaves a page that never does anything.

const first = 20_000;
const longest = 600_000;

if ('noModule' in HTMLScriptElement.prototype) {
  const tries = history.state?.starts ?? 0; // outlives a reload
  const wait = Math.min(longest, first * 2 ** tries);
  const timer = setInterval(async () => {
    if ('started' in document.documentElement.dataset) {
      clearInterval(timer);
      return;
    }
    const answer = await fetch('version.txt', { cache: 'no-store' }).catch(() => null);
    if (!answer?.ok) return;
    history.replaceState({ starts: tries + 1 }, '');
    location.reload();
  }, wait);
}
