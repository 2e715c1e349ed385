// Our pages in a real browser, where the portal's scripts have our origin: what they can't read, what a frame and a download
// get, what survives a login, and where it may lead.

import fs from 'node:fs';
import https from 'node:https';

import { HOST } from '../support/certificate.js';
import { examine } from '../support/measure.js';
import { expect, test } from '../support/world.js';

const FRAGMENT = '#/sims/42?tab=usage';

test('what follows the # survives enrolment, and later the code', async ({ visitor, newVisitor, gateway }) => {
  await visitor.open(`/sims?q=a${FRAGMENT}`);
  await visitor.givePassword('not the right password');
  await visitor.arriveAt('/sims?q=a');
  expect(new URL(visitor.page.url()).hash).toBe(FRAGMENT);

  const again = await newVisitor({ gateway, person: visitor, pocket: visitor.pocket });
  await again.open(`/sims?q=b${FRAGMENT}`);
  await again.givePassword();
  await again.page.getByRole('link', { name: 'Use a recovery code' }).click();
  await again.giveRecoveryCode(visitor.recoveryCodes[0]);
  await again.expectPortal('/sims?q=b');
  expect(new URL(again.page.url()).hash).toBe(FRAGMENT);
});

test('a script of the portal reads no page of ours, neither fetched nor in a window that it opens', async ({ visitor }) => {
  await visitor.signIn();
  const { page } = visitor;
  for (const path of ['enrol', 'recovery-codes', 'account', 'login']) {
    const { status, text } = await visitor.fetch(`/.portcullis/${path}`, { Accept: 'text/html' });
    expect(status, path).toBe(403);
    expect(text).not.toMatch(/csrf|otpauth/);
  }
  const [popup] = await Promise.all([
    page.waitForEvent('popup'),
    page.evaluate(() => {
      window.taken = window.open('/.portcullis/enrol');
    }),
  ]);
  await expect(popup.getByRole('heading', { level: 1 })).toHaveText('Set up your authenticator app');
  const read = await page.evaluate(() => {
    try {
      return { closed: window.taken.closed, key: window.taken.document.querySelector('#key')?.textContent ?? null };
    } catch (error) {
      return { closed: window.taken.closed, key: null, error: error.name };
    }
  });
  expect(read).toMatchObject({ closed: true, key: null });
  expect(await popup.evaluate(() => window.opener)).toBeNull();
});

test('a frame whose session has ended leads the whole window to the login and back', async ({ visitor }) => {
  const { page } = visitor;
  await visitor.signIn('/sims?q=a');
  await page.evaluate((hash) => { location.hash = hash; }, FRAGMENT);
  await page.context().clearCookies();
  await page.evaluate(() => {
    const frame = document.createElement('iframe');
    Object.assign(frame, { name: 'widget', src: '/sims', width: 340, height: 480 });
    document.body.append(frame);
  });
  const frame = page.frameLocator('iframe');
  await expect(frame.getByRole('heading', { level: 1 })).toHaveText('Your session has ended');
  await page.screenshot({ path: 'artefacts/pages/in-frame.png', fullPage: true });
  await frame.getByRole('link', { name: 'Sign in' }).click();
  await visitor.expectHeading('Sign in');
  await visitor.arriveAt('/sims?q=a');
  expect(new URL(page.url()).hash).toBe(FRAGMENT);
});

test('a download whose session has ended saves no login page', async ({ visitor }) => {
  const { page } = visitor;
  await visitor.signIn();
  await page.context().clearCookies();
  await page.evaluate(() => {
    document.body.insertAdjacentHTML('beforeend', '<a id="export" href="/api/sims" download="sims.json">Export</a>');
  });
  const [download] = await Promise.all([page.waitForEvent('download'), page.locator('#export').click()]);
  expect(await download.failure()).not.toBeNull();
});

test('a login in one window is noticed in another', async ({ visitor }) => {
  await visitor.open('/sims?q=a');
  const other = await visitor.newTab();
  await other.open(`/sims?q=b${FRAGMENT}`);
  await other.expectHeading('Sign in');
  await other.page.evaluate(() => dispatchEvent(new Event('focus')));
  await other.expectHeading('Sign in');
  await visitor.arriveAt('/sims?q=a');
  await other.page.evaluate(() => dispatchEvent(new Event('focus')));
  await other.expectPortal('/sims?q=b');
  expect(new URL(other.page.url()).hash).toBe(FRAGMENT);
});

for (const javaScript of [true, false]) {
  test(`a portal may lead to another site right after the login, ${javaScript ? 'with' : 'without'} script`, async ({ newVisitor, gateway, certificate }) => {
    const site = https.createServer(
      { cert: fs.readFileSync(certificate.certificate), key: fs.readFileSync(certificate.key) },
      (request, response) => response.end('<!doctype html><title>Elsewhere</title><h1>The identity provider</h1>'),
    );
    await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
    // Another host: other ports of ours are taken for the portal's inside.
    const host = `127.0.0.1:${site.address().port}`;
    const visitor = await newVisitor({ gateway, javaScript, abroad: [host] });
    await visitor.open(`/leave?to=${encodeURIComponent(`https://${host}/authorize?a=b&c="d`)}`);
    await visitor.givePassword();
    await visitor.enrol();
    await visitor.storeRecoveryCodes();
    await visitor.expectHeading('The identity provider');
    expect(visitor.page.url()).toBe(`https://${host}/authorize?a=b&c=%22d`);
    site.close();
    site.closeAllConnections();
  });
}

test('a form that another site sends reaches the portal once, when the user says so', async ({ newVisitor, gateway, portal, certificate }) => {
  const fields = '<input name="label" value="Pump 12"><input name="addEventListener" value="clobbered">';
  const site = https.createServer(
    { cert: fs.readFileSync(certificate.certificate), key: fs.readFileSync(certificate.key) },
    (request, response) => response.end(`<!doctype html><form method="post" action="${gateway.url}/sims/new?tab=2">${fields}<button>Pay</button></form>`),
  );
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
  // An address is another site than a name, which another port alone is not.
  const host = `127.0.0.1:${site.address().port}`;
  const visitor = await newVisitor({ gateway, abroad: [host] });
  await visitor.signIn();
  portal.forms.length = 0;
  await visitor.page.goto(`https://${host}/`);
  await visitor.press('Pay');
  await visitor.expectHeading('Continue to IoT Connectivity?');
  await examine(visitor.page, 'battlefield-once-more');
  expect(portal.forms).toHaveLength(0);
  await visitor.press('Continue');
  await visitor.expectPortal('/sims?q=saved');
  expect(portal.forms).toHaveLength(1);
  expect(String(portal.forms[0].body)).toBe('label=Pump+12&addEventListener=clobbered');
  site.close();
  site.closeAllConnections();
});

test('the pages that say what is wrong look right without loading anything', async ({ visitor }) => {
  const { page } = visitor;
  await visitor.open('/.portcullis/nothing');
  await examine(page, 'battlefield-not-found');
  const cookies = Array.from({ length: 20 }, (_, at) => ({ name: `portal-${at}`, value: 'x'.repeat(1000), url: visitor.gateway.url }));
  await page.context().addCookies(cookies);
  await visitor.open('/sims');
  await visitor.expectHeading('Too many cookies');
  await examine(page, 'battlefield-cookies');
  await page.context().clearCookies();
  await visitor.open('/.portcullis/login?cookies=1');
  await expect(visitor.alert()).toContainText('blocking cookies');
  await examine(page, 'battlefield-cookies-blocked');
});
