// What is measured on a page as it is drawn: width, accessibility, the QR code as a phone would see it.

import AxeBuilder from '@axe-core/playwright';
import jsQR from 'jsqr';
import { PNG } from 'pngjs';

/** Every fault that axe finds, one line each. */
export async function axeFaults(page) {
  const { violations } = await new AxeBuilder({ page }).analyze();
  return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.target.join(' ')}: ${node.failureSummary}`));
}

/** By how many pixels the page is wider than the window. */
export async function excessWidth(page) {
  return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}

/** What a camera reads off the QR code, drawn as it is right now; undefined where it reads nothing. */
export async function scannedText(locator) {
  const { data, width, height } = PNG.sync.read(await locator.screenshot());
  return jsQR(new Uint8ClampedArray(data), width, height)?.data;
}
