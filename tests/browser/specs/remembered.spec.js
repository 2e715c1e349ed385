// "Keep me signed in": the box on the login page, and what the browser has left of the session after it was closed.

import { examine } from '../support/measure.js';
import { expect, test } from '../support/world.js';

const DAYS = 30;

test.use({ settings: { sessions: { remember_me: `${DAYS}d` } } });

/** What is left of the browser's cookies when it is closed and opened again. */
async function reopen({ page, gateway }) {
  const context = page.context();
  const lasting = (await context.cookies()).filter((cookie) => cookie.expires !== -1);
  await context.clearCookies();
  await context.addCookies(lasting);
  return lasting.find((cookie) => cookie.name === gateway.cookies.session);
}

for (const javaScript of [true, false]) {
  test(`who ticks the box stays signed in, ${javaScript ? 'with' : 'without'} script`, async ({ newVisitor, gateway }) => {
    const visitor = await newVisitor({ gateway, javaScript });
    await visitor.open('/sims?q=a');
    await visitor.field('Keep me signed in').check();
    await visitor.givePassword('not the right password');
    await expect(visitor.field('Keep me signed in')).toBeChecked();
    await visitor.arriveAt('/sims?q=a');
    const cookie = await reopen(visitor);
    const days = (cookie.expires - Date.now() / 1000) / (24 * 60 * 60);
    expect(days).toBeGreaterThan(DAYS - 0.1);
    expect(days).toBeLessThanOrEqual(DAYS);
    expect(cookie).toMatchObject({ secure: true, httpOnly: true, sameSite: 'Lax', path: '/' });
    await visitor.open('/sims?q=b');
    await visitor.expectPortal('/sims?q=b');
    await visitor.open('/.portcullis/account');
    await expect(visitor.page.getByText('kept signed in until')).toBeVisible();
    await visitor.signOut();
  });
}

test('who does not tick it is out when the browser is closed', async ({ visitor }) => {
  await visitor.signIn('/sims');
  expect(await reopen(visitor)).toBeUndefined();
  await visitor.open('/sims');
  await visitor.expectHeading('Sign in');
  await expect(visitor.field('Keep me signed in')).not.toBeChecked();
});

test('the box is ticked by keyboard and by its words', async ({ visitor }) => {
  const { page } = visitor;
  await visitor.open('/sims');
  const box = page.getByRole('checkbox', { name: 'Keep me signed in', exact: true });
  await expect(box).toHaveAccessibleDescription(/For 30 days on this device/);
  await visitor.field('Password').focus();
  for (let presses = 0; presses < 3 && !(await box.evaluate((element) => element === document.activeElement)); presses += 1) {
    await page.keyboard.press('Tab');
  }
  await expect(box).toBeFocused();
  await page.keyboard.press('Space');
  await expect(box).toBeChecked();
  await page.getByText('Keep me signed in', { exact: true }).click();
  await expect(box).not.toBeChecked();
});

test('the page with the box reads well, with an error on it too', async ({ visitor }) => {
  await visitor.open('/sims');
  await examine(visitor.page, 'remember');
  await visitor.field('Keep me signed in').check();
  await visitor.givePassword('not the right password');
  await examine(visitor.page, 'remember-wrong-password');
  await visitor.arriveAt('/sims');
  await visitor.open('/.portcullis/account');
  await examine(visitor.page, 'remember-account');
});
