// Full screen, for a wall or a projector: kept awake, and with nothing on it but
// the text once the pointer rests.

import { say } from './words.js';

const rest = 3000;

export function offerFullScreen(button) {
  if (!document.fullscreenEnabled) return;
  button.hidden = false;
  button.addEventListener('click', () => {
    const change = document.fullscreenElement
      ? document.exitFullscreen()
      : document.documentElement.requestFullscreen();
    change.catch(() => {}); // the browser or its owner said no, and says so itself
  });

  let timer = 0;
  const stir = () => {
    document.body.classList.remove('resting');
    clearTimeout(timer);
    if (document.fullscreenElement) {
      timer = setTimeout(() => document.body.classList.add('resting'), rest);
    }
  };
  for (const type of ['pointermove', 'pointerdown', 'keydown', 'fullscreenchange']) {
    addEventListener(type, stir, { passive: true });
  }

  let lock = null;
  const stayAwake = async () => {
    // Where the server's policy forbids it, asking all the same would complain in the console.
    if (document.featurePolicy?.allowsFeature('screen-wake-lock') === false) return;
    if (!document.fullscreenElement) {
      await lock?.release();
      lock = null;
    } else if (document.visibilityState === 'visible') {
      lock = await navigator.wakeLock?.request('screen');
    }
  };
  const update = () => {
    button.textContent = say(document.fullscreenElement ? 'leaveFullscreen' : 'fullscreen');
    stayAwake().catch(() => {}); // refused to save power: the text still runs
  };
  document.addEventListener('fullscreenchange', update);
  document.addEventListener('visibilitychange', update);
}
