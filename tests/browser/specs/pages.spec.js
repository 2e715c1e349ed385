// Every page of ours in every state a user can bring it into: accessible, no wider than the window, light and dark, and
// kept as a picture in artefacts/.

import fs from 'node:fs';

import { WIDTHS, examine, scannedText } from '../support/measure.js';
import { expect, test } from '../support/world.js';

test('every page reads well: narrow and wide, light and dark, with a screen reader', async ({ visitor, portal }) => {
  test.slow();
  const { page } = visitor;
  const look = (name) => test.step(name, () => examine(page, name));

  await visitor.open('/sims?q=a');
  await look('login');
  await visitor.givePassword('not the right password');
  await look('login-wrong-password');
  await visitor.givePassword();
  await visitor.scan();
  await look('enrol');
  await test.step('the QR code can be scanned off every screen', async () => {
    for (const width of WIDTHS) {
      for (const colorScheme of ['light', 'dark']) {
        await page.setViewportSize({ width, height: 900 });
        await page.emulateMedia({ colorScheme });
        expect.soft(await scannedText(page.locator('.scan svg')), `${width} ${colorScheme}`).toContain('otpauth://');
      }
    }
  });
  await visitor.enrol({ code: visitor.authenticator.wrongCode() });
  await look('enrol-wrong-code');
  await page.locator('#device_name').evaluate((input) => input.removeAttribute('maxlength'));
  await visitor.enrol({ name: 'n'.repeat(65) });
  await look('enrol-long-name');
  await visitor.fillEnrolment({ name: 'W'.repeat(64) });
  await visitor.press('Save');
  await look('recovery-codes');
  await visitor.storeRecoveryCodes();
  await visitor.open('/.portcullis/account');
  await look('account');

  await portal.stop();
  await visitor.open('/sims');
  await look('portal-down');
  await portal.resume();

  await visitor.open('/.portcullis/nothing-here');
  await look('not-found');
  await visitor.signOut();
  await look('signed-out');

  await visitor.open('/sims');
  await visitor.givePassword();
  await look('code');
  await visitor.typeCode(visitor.authenticator.wrongCode());
  await look('code-wrong');
  await visitor.typeCode(visitor.authenticator.codeOf(visitor.authenticator.lastStep));
  await look('code-used');
  await visitor.leave(() => page.getByRole('link', { name: 'Use a recovery code' }).click());
  await look('recovery');
  await visitor.giveRecoveryCode('not-a-recovery-code');
  await look('recovery-wrong');
  await page.context().clearCookies();
  await visitor.giveRecoveryCode(visitor.recoveryCodes[0]);
  await look('login-timed-out');
  for (let tries = 0; tries < 6; tries += 1) {
    await visitor.givePassword('not the right password');
  }
  await expect(visitor.alert()).toContainText('too many');
  await look('login-throttled');
});

test('password managers and phones know every field', async ({ visitor }) => {
  const { page } = visitor;
  const expectField = (name, wanted) =>
    Promise.all(Object.entries(wanted).map(([attribute, value]) => expect(page.locator(`[name=${name}]`)).toHaveAttribute(attribute, value)));

  await visitor.open('/sims');
  await expectField('email', { autocomplete: 'username', inputmode: 'email', autocapitalize: 'none' });
  await expectField('password', { autocomplete: 'current-password', type: 'password' });
  await visitor.givePassword();
  await expectField('code', { autocomplete: 'one-time-code', inputmode: 'numeric' });
  await visitor.enrol();
  await visitor.arriveAt('/sims');
  await visitor.signOut();
  await visitor.open('/sims');
  await visitor.givePassword();
  await expectField('code', { autocomplete: 'one-time-code', inputmode: 'numeric' });
  await visitor.leave(() => page.getByRole('link', { name: 'Use a recovery code' }).click());
  await expectField('recovery_code', { autocomplete: 'off' });
});

test('the buttons that need script do what they say', async ({ visitor, gateway }) => {
  const { page } = visitor;
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write'], { origin: gateway.url });
  const clipboard = () => page.evaluate(() => navigator.clipboard.readText());

  await visitor.open('/sims');
  await visitor.field('Password').fill('shown');
  await page.getByRole('button', { name: 'Show password' }).click();
  await expect(visitor.field('Password')).toHaveAttribute('type', 'text');
  await page.getByRole('button', { name: 'Hide password' }).click();
  await expect(visitor.field('Password')).toHaveAttribute('type', 'password');
  await visitor.givePassword();
  await visitor.button('Copy key').click();
  await expect(visitor.button('Copied')).toBeVisible();
  expect(await clipboard()).toBe(await visitor.typedKey());
  await visitor.enrol();

  const codes = await visitor.readRecoveryCodes();
  await visitor.button('Copy').click();
  await expect(visitor.button('Copied')).toBeVisible();
  expect(await clipboard()).toBe(codes.join('\n'));
  const [download] = await Promise.all([page.waitForEvent('download'), visitor.button('Download').click()]);
  const file = fs.readFileSync(await download.path(), 'utf8');
  expect(file.trim().split('\n').slice(-10)).toEqual(codes);
});

test('no page of ours is kept, framed or guessed at', async ({ visitor }) => {
  const answers = new Map();
  visitor.page.on('response', (answer) => {
    const { pathname } = new URL(answer.url());
    if (pathname.startsWith('/.portcullis/') && !pathname.includes('/assets/')) {
      answers.set(`${answer.request().method()} ${pathname} ${answer.status()}`, answer.headers());
    }
  });
  await visitor.signIn();
  await visitor.signOut();
  expect(answers.size).toBeGreaterThanOrEqual(8);
  for (const [what, headers] of answers) {
    expect.soft(headers['cache-control'], what).toContain('no-store');
    expect.soft(headers['content-security-policy'], what).toMatch(/default-src 'none'.*frame-ancestors 'none'/);
    expect.soft(headers['content-security-policy'], what).not.toMatch(/unsafe/);
    expect.soft(headers['x-content-type-options'], what).toBe('nosniff');
    expect.soft(headers['referrer-policy'], what).toMatch(/^(no-referrer|same-origin)$/);
    expect.soft(headers['strict-transport-security'], what).toMatch(/max-age=\d{7,}/);
  }
});
