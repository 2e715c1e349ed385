// A portal that leads its users about: frames, redirects, fragments, event streams and a service worker.

import fs from 'node:fs';
import https from 'node:https';

import { Crossroads } from '../support/crossroads.js';
import { behind, endSession, expect, firstLogin, laterLogin, listen, signInAgain } from '../support/behind.js';

const test = behind(() => Crossroads.start());

test('redirects keep the fragment that the user asked for, and that of the portal goes first', async ({ visitor }) => {
  const { page } = visitor;
  const faults = listen(visitor);
  await firstLogin(visitor, '/chain', '/long#below');
  await expect(page.locator('#below')).toBeInViewport();
  await visitor.open('/inside#below');
  await expect(page).toHaveURL(`${visitor.gateway.url}/long#below`);
  expect(faults).toEqual([]);
  await endSession(visitor);
  await laterLogin(visitor, '/inside?q=%2F%20+#below', '/long#below');
  await expect(page.locator('#below')).toBeInViewport();
});

test('a frame whose session has ended leads the whole page to the login and back', async ({ visitor }) => {
  const { page } = visitor;
  await firstLogin(visitor, '/frames');
  const frame = page.frameLocator('iframe');
  await expect(frame.getByRole('heading')).toHaveText('/long');
  await endSession(visitor);
  await page.evaluate(() => frames.inner.location.reload());
  await expect(frame.getByRole('heading')).toHaveText('Your session has ended');
  await visitor.leave(() => frame.getByRole('link', { name: 'Sign in' }).click());
  await visitor.expectHeading('Sign in');
  await signInAgain(visitor);
  await expect(page).toHaveURL(`${visitor.gateway.url}/frames`);
  await expect(frame.getByRole('heading')).toHaveText('/long');
});

test('an event stream is cut at the end of the session, and does not come back by itself', async ({ visitor }) => {
  const { page } = visitor;
  await firstLogin(visitor, '/long');
  await page.evaluate(() => {
    window.seen = { events: 0, errors: 0 };
    window.stream = new EventSource('/events');
    window.stream.onmessage = () => (window.seen.events += 1);
    window.stream.onerror = () => (window.seen.errors += 1);
  });
  await expect.poll(() => page.evaluate(() => window.seen.events)).toBeGreaterThan(3);
  await endSession(visitor);
  await expect.poll(() => page.evaluate(() => window.stream.readyState)).toBe(2);
  expect(await page.evaluate(() => window.seen.errors)).toBeGreaterThan(0);
});

test('a part of the portal with a service worker of its own is behind the login all the same', async ({ visitor }) => {
  const { page } = visitor;
  await firstLogin(visitor, '/app/');
  await page.evaluate(async () => {
    await navigator.serviceWorker.register('/app/worker.js');
    await navigator.serviceWorker.ready;
  });
  await page.reload();
  await visitor.expectHeading('/app/');
  expect(await page.evaluate(() => navigator.serviceWorker.controller !== null)).toBe(true);
  await endSession(visitor);
  await laterLogin(visitor, '/app/sims?q=a#below');
  await expect(page.locator('#below')).toBeInViewport();
});

test('a portal whose first page is on another host gets its users there', async ({ newVisitor, gateway, certificate }) => {
  const site = https.createServer(
    { cert: fs.readFileSync(certificate.certificate), key: fs.readFileSync(certificate.key) },
    (request, response) => response.end('<!doctype html><title>Elsewhere</title><h1>Elsewhere</h1>'),
  );
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
  const host = `127.0.0.1:${site.address().port}`;
  const visitor = await newVisitor({ gateway, abroad: [host] });
  const { page } = visitor;
  const away = `/away?to=${encodeURIComponent(`https://${host}/start?a=b#part`)}`;
  await visitor.open(away);
  await visitor.givePassword();
  await visitor.enrol();
  await visitor.storeRecoveryCodes();
  await visitor.expectHeading('Elsewhere');
  expect(page.url()).toBe(`https://${host}/start?a=b#part`);
  await visitor.open('/long');
  await endSession(visitor);
  await visitor.open(away);
  await signInAgain(visitor);
  await visitor.expectHeading('Elsewhere');
  site.close();
  site.closeAllConnections();
});
