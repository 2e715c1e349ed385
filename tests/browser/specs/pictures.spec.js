// The two pictures of the README: what a user sees first, and what they scan once. Each run takes them; only with
// BROWSER_TESTS_PICTURES set do they replace those in docs/pictures, since a QR code is never the same.

import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { scannedText } from '../support/measure.js';
import { expect, test } from '../support/world.js';

const KEPT = fileURLToPath(new URL('../../../docs/pictures/', import.meta.url));
const ADA = { email: 'ada@example.com', name: 'Ada Lovelace', password: 'gravel teapot under the stairs' };
const WINDOW = { width: 800, height: 960 };

test('the login and the QR code look as the README shows them', async ({ newVisitor, gateway }, testInfo) => {
  const visitor = await newVisitor({ gateway, person: ADA, viewport: WINDOW, colorScheme: 'light' });
  await gateway.addUser(visitor);
  const { page } = visitor;
  const take = async (name, height) => {
    const picture = await page.screenshot({ path: testInfo.outputPath(`${name}.png`), caret: 'hide', clip: { x: 0, y: 0, width: WINDOW.width, height } });
    expect(picture.length, 'small enough for a page').toBeLessThan(120_000);
    expect(fs.existsSync(path.join(KEPT, `${name}.png`)) || process.env.BROWSER_TESTS_PICTURES, `docs/pictures has ${name}`).toBeTruthy();
    if (process.env.BROWSER_TESTS_PICTURES) {
      fs.mkdirSync(KEPT, { recursive: true });
      fs.writeFileSync(path.join(KEPT, `${name}.png`), picture);
    }
  };

  await visitor.open('/sims');
  await visitor.field('E-mail').fill(ADA.email);
  await take('login', 660);
  await visitor.givePassword();
  await visitor.expectHeading('Set up your authenticator app');
  expect(await scannedText(page.locator('.scan svg'))).toContain('otpauth://totp/IoT%20Connectivity:ada');
  await take('enrolment', 960);
  await visitor.scan();
});
