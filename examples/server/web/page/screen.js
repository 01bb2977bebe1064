// The whole screen, for a wall or a projector: kept awake, and with nothing on it
// but the work once the pointer rests. A page with ?wall or ?overlay is for such a
// screen from the start, and so is a browser in kiosk mode or after F11.

import { say } from './words.js';

const rest = 3000;
const gone = 120_000; // after which whoever touched the screen has left
const renew = 60_000; // between two requests to stay awake, which a browser may end

// watchScreen offers the full screen by the button, and calls onGone when nobody
// has touched a full screen for long.
export function watchScreen(button, onGone) {
  const root = document.documentElement;
  const forWall = root.classList.contains('wall') || root.classList.contains('overlay');
  const display = matchMedia('(display-mode: fullscreen)');
  const isFull = () => forWall || document.fullscreenElement !== null || display.matches;

  if (document.fullscreenEnabled && !forWall) {
    button.hidden = false;
    button.addEventListener('click', () => {
      const change = document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen();
      change.catch(() => {}); // the browser or its owner said no, and says so itself
    });
  }

  let resting = 0;
  let leaving = 0;
  const settle = () => document.body.classList.toggle('resting', isFull());
  const stir = ({ type, movementX, movementY }) => {
    // A page that moves under a pointer that does not is no movement.
    if (type === 'pointermove' && movementX === 0 && movementY === 0) return;
    clearTimeout(resting);
    clearTimeout(leaving);
    if (!isFull()) {
      settle();
      return;
    }
    if (!forWall) document.body.classList.remove('resting');
    resting = setTimeout(settle, rest);
    leaving = setTimeout(() => isFull() && onGone(), gone);
  };
  for (const type of ['pointermove', 'pointerdown', 'keydown', 'wheel', 'touchstart', 'fullscreenchange']) {
    addEventListener(type, stir, { passive: true });
  }

  let lock = null;
  const stayAwake = async () => {
    // Where the server's policy forbids it, asking all the same would complain in the console.
    if (document.featurePolicy?.allowsFeature('screen-wake-lock') === false) return;
    if (!isFull()) {
      await lock?.release();
      lock = null;
    } else if (document.visibilityState === 'visible' && (lock === null || lock.released)) {
      lock = (await navigator.wakeLock?.request('screen')) ?? null;
    }
  };
  const update = () => {
    root.classList.toggle('full', isFull());
    // The button cannot leave a full screen that it did not make.
    button.disabled = display.matches && !document.fullscreenElement;
    button.textContent = say(document.fullscreenElement ? 'leaveFullscreen' : 'fullscreen');
    stayAwake().catch(() => {}); // refused to save power: the text still runs
  };
  document.addEventListener('fullscreenchange', update);
  document.addEventListener('visibilitychange', update);
  display.addEventListener('change', () => {
    update();
    settle();
  });
  setInterval(update, renew);
  update();
  settle();
}

// offerCode shows the QR code of the address on request.
export function offerCode(button, dialog) {
  if (!dialog) return;
  button?.addEventListener('click', () => dialog.showModal());
  dialog.addEventListener('click', ({ target }) => {
    if (target === dialog || target.localName === 'button') dialog.close();
  });
}
