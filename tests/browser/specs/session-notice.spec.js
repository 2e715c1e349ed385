// A page of the portal that is open when its session ends: the notice in it, and how the page goes on.

import fs from 'node:fs';

import { axeFaults, excessWidth } from '../support/measure.js';
import { Visitor } from '../support/visitor.js';
import { expect, test } from '../support/world.js';

const PICTURES = new URL('../artefacts/notice/', import.meta.url).pathname;
const ALMOST_AN_HOUR = 59;
const AFTER_LUNCH = 70;

// Nobody else should be at a gateway whose clock is set.
test.use({ settings: { portal: { session_notice: true } } });

test.afterEach(async ({ gateway }) => {
  await gateway.passTime(0);
});

const notice = ({ page }) => page.getByRole('region', { name: 'Your session' });
const button = (visitor, name) => notice(visitor).getByRole('button', { name, exact: true });
const notes = ({ page }) => page.getByLabel('Notes');

test('two minutes before the end the page asks, and a press keeps the session', async ({ visitor }) => {
  await writeOn(visitor, '/page/loud');
  await expect(notice(visitor)).toBeHidden();
  await timePasses(visitor, ALMOST_AN_HOUR);
  await comeBack(visitor);
  await expect(notice(visitor).getByRole('alert')).toContainText(/Still there\?You'll be signed out in (1 minute|less than a minute)\./);
  await examine(visitor, 'still-there');
  await expect(notice(visitor).getByRole('button')).toHaveCount(1);

  await notes(visitor).focus();
  await button(visitor, 'Stay signed in').click();
  await expect(notice(visitor)).toBeHidden();
  await expect(notes(visitor)).toBeFocused();
  const { idle_in: left } = JSON.parse((await visitor.fetch('/.portcullis/session')).text);
  expect(left).toBeGreaterThan(3500);
});

test('after the end a login beside the page lets it go on, with all that was typed', async ({ visitor }) => {
  await writeOn(visitor, '/page/loud');
  await timePasses(visitor, AFTER_LUNCH);
  await comeBack(visitor);
  await expect(notice(visitor).getByRole('alert')).toContainText("You're signed out");
  await examine(visitor, 'signed-out');
  await signInBeside(visitor);
  await expect(notes(visitor)).toHaveValue('half a sentence');
  await expect(notice(visitor).getByText("You're signed in again")).toBeVisible();
  await expect(notice(visitor)).toBeHidden();
  expect((await visitor.fetch('/api/sims')).status).toBe(200);
});

test('everything works with the keyboard alone', async ({ visitor }) => {
  const { page } = visitor;
  await writeOn(visitor, '/page/bare');
  await timePasses(visitor, ALMOST_AN_HOUR);
  await comeBack(visitor);
  await expect(button(visitor, 'Stay signed in')).toBeVisible();
  // Typing goes on where it was.
  await page.keyboard.type(' and more');
  await expect(notes(visitor)).toHaveValue('half a sentence and more');
  await page.keyboard.press('Tab');
  await expect(button(visitor, 'Stay signed in')).toBeFocused();
  await page.keyboard.press('Enter');
  await expect(notice(visitor)).toBeHidden();
  await expect(notes(visitor)).toBeFocused();
});

for (const kind of ['strict', 'nonce', 'base', 'meta', 'dialog', 'moved', 'loud']) {
  test(`the notice comes, and the page stays right: ${kind}`, async ({ visitor }) => {
    await writeOn(visitor, `/page/${kind}`);
    expect(await visitor.page.evaluate(() => document.compatMode)).toBe('CSS1Compat');
    expect(await visitor.page.locator('script[src*=portcullis]').count(), 'nothing of ours is left').toBe(0);
    if (kind === 'nonce') {
      await expect(visitor.page.locator('body')).toHaveAttribute('data-ran', 'yes');
    }
    await end(visitor);
    await comeBack(visitor);
    await expect(button(visitor, 'Sign in')).toBeVisible();
    await visitor.page.screenshot({ path: `${PICTURES}${kind}.png` });
    await signInBeside(visitor);
    await expect(notes(visitor)).toHaveValue('half a sentence');
    await expect(notice(visitor)).toBeHidden();
  });
}

test('a page is the same to the browser as without the notice, however it begins', async ({ visitor }) => {
  const { page } = visitor;
  await visitor.signIn();
  for (const html of BEGINNINGS) {
    await page.goto(`${visitor.gateway.url}/raw?${new URLSearchParams({ html })}`);
    await page.waitForFunction(() => window[Symbol.for('portcullis-session-notice')]);
    const [shown, meant] = await page.evaluate((html) => {
      const read = (text) => [text.doctype?.publicId, text.compatMode, text.documentElement.outerHTML];
      return [read(document), read(new DOMParser().parseFromString(html, 'text/html'))];
    }, html);
    expect.soft(shown, html).toEqual(meant);
  }
});

test('a browser that opens no window says what else can be done', async ({ visitor }) => {
  await visitor.page.addInitScript(() => {
    window.open = () => null;
  });
  await writeOn(visitor, '/page/bare');
  await end(visitor);
  await comeBack(visitor);
  await button(visitor, 'Sign in').click();
  await expect(notice(visitor).getByRole('alert')).toContainText('sign in in another tab and come back');
});

test('a press that does not get through is told', async ({ visitor }) => {
  const { page } = visitor;
  await writeOn(visitor, '/page/bare');
  await timePasses(visitor, ALMOST_AN_HOUR);
  await comeBack(visitor);
  await page.route('**/.portcullis/stay', (route) => route.abort());
  await button(visitor, 'Stay signed in').click();
  await expect(notice(visitor).getByRole('alert')).toContainText("That didn't work.");
  await page.unroute('**/.portcullis/stay');
  await button(visitor, 'Stay signed in').click();
  await expect(notice(visitor)).toBeHidden();
});

test('a dialog that the page opens later takes the notice in, and so does the page when it closes', async ({ visitor }) => {
  const { page } = visitor;
  await writeOn(visitor, '/page/bare');
  await end(visitor);
  await comeBack(visitor);
  await expect(button(visitor, 'Sign in')).toBeVisible();
  await page.evaluate(() => {
    const dialog = document.createElement('dialog');
    dialog.innerHTML = '<p>Really?</p><button>Close</button>';
    dialog.querySelector('button').onclick = () => dialog.remove();
    document.body.append(dialog);
    dialog.showModal();
  });
  await page.keyboard.press('Shift');
  await button(visitor, 'Hide').click({ trial: true });
  await visitor.button('Close').click();
  await page.keyboard.press('Shift');
  await expect(button(visitor, 'Sign in')).toBeVisible();
  await signInBeside(visitor);
});

test('a page in a sandbox is left alone', async ({ visitor }) => {
  const scripts = [];
  visitor.page.on('request', (request) => request.url().includes('session-notice') && scripts.push(request.url()));
  await visitor.signIn('/page/sandbox');
  await visitor.page.waitForLoadState('networkidle');
  expect(scripts).toEqual([]);
});

test('several tabs: a press in one is a press for all, and so is a login', async ({ visitor }) => {
  await writeOn(visitor, '/page/bare');
  const other = await visitor.newTab();
  await other.open('/page/bare');
  await timePasses(visitor, ALMOST_AN_HOUR);
  for (const each of [visitor, other]) {
    await comeBack(each);
    await expect(button(each, 'Stay signed in')).toBeVisible();
  }
  await button(other, 'Stay signed in').click();
  await expect(notice(other)).toBeHidden();
  await visitor.page.bringToFront();
  await expect(notice(visitor)).toBeHidden();

  await end(visitor);
  for (const each of [visitor, other]) {
    await comeBack(each);
    await expect(button(each, 'Sign in')).toBeVisible();
  }
  await signInBeside(other);
  await comeBack(visitor);
  await expect(notice(visitor)).toBeHidden();
});

test('a page that is refused looks why; one that was put away stays away', async ({ visitor }) => {
  const { page } = visitor;
  await writeOn(visitor, '/page/bare');
  await end(visitor);
  await page.evaluate(async () => (await fetch('/api/sims')).text());
  await expect(button(visitor, 'Sign in')).toBeVisible();
  await button(visitor, 'Hide').click();
  await expect(notice(visitor)).toBeHidden();
  const looked = page.waitForResponse((answer) => answer.url().endsWith('/.portcullis/session'));
  await comeBack(visitor);
  await looked;
  await expect(notice(visitor)).toBeHidden();
});

test('somebody who goes on working hears of an end that came from elsewhere', async ({ visitor }) => {
  const { page } = visitor;
  // A minute is two seconds.
  await page.addInitScript(() => {
    const now = performance.now.bind(performance);
    performance.now = () => 30 * now();
  });
  await writeOn(visitor, '/page/bare');
  await end(visitor);
  await expect(async () => {
    await page.keyboard.type('.');
    await expect(button(visitor, 'Sign in')).toBeVisible({ timeout: 500 });
  }).toPass();
});

test('whoever signs in as somebody else is told so', async ({ visitor, newVisitor, gateway }) => {
  await writeOn(visitor, '/page/bare');
  const other = await newVisitor({ gateway });
  await other.signIn();
  const [cookie] = (await other.page.context().cookies()).filter(({ name }) => name === gateway.cookies.session);
  await visitor.page.context().addCookies([cookie]);
  await comeBack(visitor);
  await expect(notice(visitor).getByRole('alert')).toContainText(`You're signed in as ${other.email}`);
  await button(visitor, 'Reload').click();
  await expect(notice(visitor)).toBeHidden();
  await expect(notes(visitor)).toHaveValue('');
});

test('a browser whose clock is wrong is told the same', async ({ visitor }) => {
  await visitor.page.addInitScript(() => {
    const now = Date.now;
    Date.now = () => now() + 86_400_000;
  });
  await writeOn(visitor, '/page/bare');
  await expect(notice(visitor)).toBeHidden();
  await timePasses(visitor, ALMOST_AN_HOUR);
  await comeBack(visitor);
  await expect(button(visitor, 'Stay signed in')).toBeVisible();
});

const BEGINNINGS = [
  '<!doctype html><html lang="en"><head><title>A</title></head><body>A</body></html>',
  '<!doctype html><title>A</title><p>A', '<!doctype html><p>A', '<!doctype html>A', '<p>A', 'A', '<title>A</title>', '{"a": 1}',
  '<!doctype html><html><body class="a">A', '<html lang=en><script>"<head>"</script><p>A', '<html><header>A</header>', '<head/><p>A',
  '<html><template><head></template><p>A', '<!-- <head> --><html><head><title>A</title>', '<!--><head><title>A</title>', '<!---><head><p>A',
  '<!-- --!><head><p>A', '<!-- -- ><head> --><head><p>A', '<!-- <!--><head><p>A', '<!--!><head> --><head><p>A', '<!ELEMENT x><head><p>A',
  '<![CDATA[<head>]]><p>A', '<!doctype html "a>b"><head><p>A', '<!DOCTYPEhtml><head><p>A', '<?xml version="1.0"?><!doctype html><html><head><p>A',
  '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd"><html xmlns="http://www.w3.org/1999/xhtml"><head></head><body><p>A</p></body></html>',
  '<html a=\'<head>\' b="<head>"><head c=">" d=\'>\'><p>A', '<html a=<head><head><p>A', '<html ="><head>"><head><p>A', '<html a\'=>"><head><p>A',
  '<html a=\'x\'b=\'>\'><head><p>A', '<html a=/\'><head><p>A', '<html/a=">"><head><p>A', '</p><p>A', '</head><p>A', '< head>A', '<head><head><p>A',
  '<title><head></title><p>A', '<style><head></style><p>A', '<textarea><head></textarea>', '<plaintext><head>',
  '<frameset><frame></frameset>', '<svg><head></svg>', '\n\t <html>\n<head>\n<title>A</title>', '<base target="_top"><p>A',
];

/** Signs in, opens the page and begins to write. */
async function writeOn(visitor, target) {
  const looked = visitor.page.waitForResponse((answer) => answer.url().endsWith('/.portcullis/session'));
  await visitor.signIn(target);
  await looked;
  await notes(visitor).fill('half a sentence');
}

async function comeBack({ page }) {
  await page.bringToFront();
  await page.evaluate(() => dispatchEvent(new Event('focus')));
}

async function end(visitor) {
  await visitor.gateway.portcullis(['session', 'revoke', '--user', visitor.email]);
  // What every page may ask that gets the notice.
  await expect.poll(async () => (await visitor.fetch('/.portcullis/session')).text, { intervals: [50] }).toBe('{"signed_in":false}');
}

/** Time passes for the gateway and for the user's phone alike. */
async function timePasses(visitor, minutes) {
  await visitor.gateway.passTime(minutes);
  visitor.pocket.ahead = minutes;
}

/** Signs in in the window that the notice opens, which closes by itself. */
async function signInBeside(visitor) {
  const [window] = await Promise.all([visitor.page.waitForEvent('popup'), button(visitor, 'Sign in').click()]);
  const beside = new Visitor({ ...visitor, page: window, person: visitor });
  await beside.expectHeading('Sign in');
  await beside.givePassword();
  await beside.expectHeading('Enter your code');
  const code = await beside.authenticator.code();
  await Promise.all([window.waitForEvent('close'), beside.field('Six-digit code').fill(code)]);
}

/** Looks at the notice in every window, light and dark, and leaves pictures of it. */
async function examine({ page }, name) {
  fs.mkdirSync(PICTURES, { recursive: true });
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    for (const width of [320, 360, 1280]) {
      await page.setViewportSize({ width, height: 640 });
      expect.soft(await excessWidth(page), `${name}: pixels too wide at ${width}`).toBe(0);
      await page.screenshot({ path: `${PICTURES}${name}-${width}-${colorScheme}.png` });
    }
    const faults = await axeFaults(page);
    expect.soft(faults.filter((fault) => fault.includes('portcullis-session-notice')), `${name}: axe, ${colorScheme}`).toEqual([]);
  }
  await page.setViewportSize({ width: 1280, height: 900 });
}
