// What is measured on a page as it is drawn: width, accessibility, the QR code as a phone would see it.

import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import AxeBuilder from '@axe-core/playwright';
import { expect } from '@playwright/test';
import jsQR from 'jsqr';
import { PNG } from 'pngjs';

const PICTURES = fileURLToPath(new URL('../artefacts/pages/', import.meta.url));

/** The windows that every page has to fit into. */
export const WIDTHS = [320, 360, 1280];

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

/** Looks at a page in every window, light and dark, and leaves pictures of it. Whatever is wrong is a soft fault. */
export async function examine(page, name) {
  fs.mkdirSync(PICTURES, { recursive: true });
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: 800 });
      expect.soft(await excessWidth(page), `${name}: pixels too wide at ${width}`).toBe(0);
      if (width !== 320) {
        await page.screenshot({ path: path.join(PICTURES, `${name}-${width}-${colorScheme}.png`), fullPage: true });
      }
    }
    expect.soft(await axeFaults(page), `${name}: axe, ${colorScheme}`).toEqual([]);
  }
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: 'light' });
}
