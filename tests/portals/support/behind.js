// What a test of this suite gets: what world.js of the browser suite gives, with a portal of its choice behind the
// gateway. And what users do at every portal.

import { scannedText } from '../../browser/support/measure.js';
import { Visitor } from '../../browser/support/visitor.js';
import { test as base, expect } from '../../browser/support/world.js';

export { expect };

// In minutes.
const AFTER_LUNCH = 70;

/**
 * A `test` whose gateway stands in front of what `start(folder)` starts, with these keys of `[portal]`; a function makes them
 * where they depend on the portal.
 */
export function behind(start, keys = {}) {
  return base.extend({
    portal: [
      async ({ folder }, use) => {
        const portal = await start(`${folder}/portal`);
        await use(portal);
        await portal.stop();
      },
      { scope: 'worker' },
    ],
    settings: [
      async ({ portal }, use) => use({ portal: typeof keys === 'function' ? keys(portal) : keys }),
      { scope: 'worker' },
    ],
  });
}

/**
 * From a page of the portal through the first login to that page: password, QR code, name, Save, recovery codes. `arrival` is
 * where the portal itself leads whoever asks for that page, if anywhere.
 */
export async function firstLogin(visitor, target, arrival = target) {
  const { page } = visitor;
  await visitor.open(target);
  await visitor.expectHeading('Sign in');
  await visitor.givePassword();
  await visitor.expectHeading('Set up your authenticator app');
  const key = new URL(await scannedText(page.locator('.scan svg').first())).searchParams.get('secret');
  expect(await visitor.typedKey(), 'the key in the QR code').toBe(key);
  await visitor.enrol();
  await visitor.expectHeading('Save your recovery codes');
  await visitor.storeRecoveryCodes();
  await expect(page).toHaveURL(visitor.gateway.url + arrival);
}

/** From a page of the portal through a later login to that page, with whatever stands behind its `#`. */
export async function laterLogin(visitor, target, arrival = target) {
  // From somewhere else: another fragment alone loads nothing.
  await visitor.page.goto('about:blank');
  await visitor.open(target);
  await visitor.expectHeading('Sign in');
  await signInAgain(visitor);
  await expect(visitor.page).toHaveURL(visitor.gateway.url + arrival);
}

/** At the login page: the password and a code. */
export async function signInAgain(visitor) {
  await visitor.givePassword();
  await visitor.expectHeading('Enter your code');
  await visitor.giveCode();
}

/** In another tab of the same browser; then back to this one. */
export async function signInElsewhere(visitor) {
  const other = await visitor.newTab();
  await other.open('/.portcullis/account');
  await other.expectHeading('Sign in');
  await signInAgain(other);
  await visitor.page.bringToFront();
}

/** The notice that the gateway has put into this page. */
export function notice({ page }) {
  return page.getByRole('region', { name: 'Your session' });
}

/** Somebody comes back to this page, which looks how its session is. */
export async function comeBack({ page }) {
  await page.bringToFront();
  await page.evaluate(() => dispatchEvent(new Event('focus')));
}

/** Signs in again in the window that the notice opens. That closes by itself, and the page goes on. */
export async function signInBeside(visitor) {
  const { page } = visitor;
  const [window] = await Promise.all([page.waitForEvent('popup'), notice(visitor).getByRole('button', { name: 'Sign in' }).click()]);
  const beside = new Visitor({ ...visitor, page: window, person: visitor });
  await beside.expectHeading('Sign in');
  await beside.givePassword();
  await beside.expectHeading('Enter your code');
  const [code] = await Promise.all([beside.authenticator.code(), window.waitForLoadState()]);
  await Promise.all([window.waitForEvent('close'), beside.field('Six-digit code').fill(code)]);
  await expect(notice(visitor).getByText("You're signed in again")).toBeVisible();
  await expect(notice(visitor)).toBeHidden();
}

/** An operator ends all sessions of this user, and the gateway has heard of it. */
export async function endSession(visitor) {
  await visitor.gateway.portcullis(['session', 'revoke', '--user', visitor.email]);
  const knock = async () => (await visitor.fetch('/.portcullis/whoami')).status;
  await expect.poll(knock, { intervals: [50] }).toBe(401);
}

/** The session ends because nobody has used it for longer than it may be; the user's phone goes with the time. */
export async function afterLunch(visitor) {
  await visitor.gateway.passTime(AFTER_LUNCH);
  visitor.pocket.ahead = AFTER_LUNCH;
}

/**
 * What goes wrong in this page from now on: requests without an answer, answers that are errors, messages of error in the
 * console. Addresses outside the gateway are left out: the browser of the tests reaches none. So is the icon that browsers
 * ask for and many portals do not have.
 */
export function listen({ page, gateway }) {
  const faults = [];
  const isInside = (url) => url.startsWith(gateway.url) || url.startsWith(gateway.url.replace('https', 'wss'));
  const isIcon = (url) => url === `${gateway.url}/favicon.ico`;
  page.on('requestfailed', (request) => {
    const why = request.failure()?.errorText;
    // What a page no longer wants when it is left is no fault.
    if (isInside(request.url()) && why !== 'net::ERR_ABORTED') {
      faults.push(`${request.method()} ${request.url()}: ${why}`);
    }
  });
  page.on('response', (answer) => {
    if (isInside(answer.url()) && answer.status() >= 400 && !isIcon(answer.url())) {
      faults.push(`${answer.request().method()} ${answer.url()}: ${answer.status()}`);
    }
  });
  page.on('console', (message) => {
    const { url } = message.location();
    if (message.type() === 'error' && (url === '' || isInside(url)) && !isIcon(url)) {
      faults.push(`console: ${message.text()} (${url})`);
    }
  });
  page.on('pageerror', (error) => faults.push(`script: ${error.message}`));
  return faults;
}

/** The bytes of what the browser saves when `act` is done. */
export async function saved(page, act) {
  const [download] = await Promise.all([page.waitForEvent('download'), act()]);
  return { name: download.suggestedFilename(), bytes: Buffer.concat(await (await download.createReadStream()).toArray()) };
}
