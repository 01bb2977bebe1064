// Writes the moments of a page as the visitor is used to.

import { locale } from './label.js';

export function showMoments() {
  for (const time of document.querySelectorAll('time[datetime]')) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.textContent = at.toLocaleString(locale(), { dateStyle: 'medium', timeStyle: 'short' });
  }
}
