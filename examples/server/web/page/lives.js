// The list of the lives that have ended.

import { showMoments } from './moments.js';

showMoments();
document.documentElement.dataset.started = '';
