// Two portals behind one gateway, each at a host of its own: one login for both, handed over by way of redirects, and one end.

import path from 'node:path';

import { OTHER_HOST } from '../support/certificate.js';
import { Gateway } from '../support/gateway.js';
import { Portal } from '../support/portal.js';
import { Visitor } from '../support/visitor.js';
import { expect, test as base } from '../support/world.js';

const test = base.extend({
  /** A gateway with a second site, and what is there. */
  sites: async ({ folder, certificate, portal }, use, testInfo) => {
    const crm = await Portal.start();
    const gateway = await Gateway.start({
      folder: path.join(folder, `two-sites-${testInfo.testId}`),
      certificate,
      upstream: portal.url,
      settings: (port) => ({
        sites: [{ public_url: `https://${OTHER_HOST}:${port}`, name: 'Customers', upstreams: [crm.url], session_notice: true }],
      }),
    });
    const other = `https://${OTHER_HOST}:${gateway.port}`;
    await use({ gateway, crm, other, abroad: [new URL(other).host] });
    await gateway.stop();
    await crm.stop();
  },
});

test('a login for one site opens the other without a page, and signing out at one ends both with their sockets', async ({ sites, newVisitor }) => {
  const { gateway, crm, other, abroad } = sites;
  const visitor = await newVisitor({ gateway, abroad });
  const { page } = visitor;
  // Asked for at the other site, signed in at the first, and back.
  await page.goto(`${other}/sims?q=late`);
  await visitor.expectHeading('Sign in');
  expect(page.url().startsWith(`${gateway.url}/.portcullis/login`)).toBe(true);
  await visitor.givePassword();
  await visitor.enrol();
  await visitor.readRecoveryCodes();
  await visitor.button("I've saved them").click();
  await page.waitForURL(`${other}/sims?q=late`);
  await expect(page.locator('#query')).toHaveText('late');
  expect(crm.requests).toContain('GET /sims?q=late');
  // The first site knows them without anything more.
  await visitor.open('/sims');
  await visitor.expectPortal('/sims');

  const tab = await visitor.newTab();
  await tab.page.goto(`${other}/`);
  await expect(tab.heading()).toHaveText('Overview');
  for (const open of [page, tab.page]) {
    await open.evaluate(openSocket);
    await expect.poll(() => open.evaluate(() => globalThis.heard)).toBeGreaterThan(1);
  }
  await visitor.open('/.portcullis/account');
  await expect(page.getByText(new RegExp(`Used at ${new URL(gateway.url).host}, ${abroad[0]}`))).toBeVisible();
  await visitor.open('/sims');
  await page.evaluate(openSocket);
  await expect.poll(() => page.evaluate(() => globalThis.heard)).toBeGreaterThan(1);

  // In a third tab, so that both stay open.
  const leaving = await visitor.newTab();
  await leaving.signOut();
  for (const open of [page, tab.page]) {
    await expect.poll(() => open.evaluate(() => globalThis.ended), { timeout: 2000 }).toBe(true);
  }
  await tab.page.goto(`${other}/sims`);
  await expect(tab.heading()).toHaveText('Sign in');
  expect(tab.page.url().startsWith(gateway.url)).toBe(true);
  // And in again, with a code.
  await tab.givePassword();
  await tab.giveCode();
  await tab.page.waitForURL(`${other}/sims`);
});

test('a code that has been used, and one of another browser, end at the login page of the site that asked', async ({ sites, newVisitor }) => {
  const { gateway, other, abroad } = sites;
  const visitor = await newVisitor({ gateway, abroad });
  const { page } = visitor;
  await visitor.signIn('/sims');
  const used = arrival(page, other);
  await page.goto(`${other}/sims`);
  await expect(visitor.heading()).toHaveText('SIM list');
  const session = (await page.context().cookies(other)).find((cookie) => cookie.name === gateway.cookies.session);
  expect([session.domain, session.httpOnly, session.sameSite]).toEqual([OTHER_HOST, true, 'Lax']);
  expect(session.value).not.toBe((await page.context().cookies(gateway.url)).find((cookie) => cookie.name === session.name).value);

  await page.context().clearCookies({ name: session.name, domain: OTHER_HOST });
  await page.goto(await used);
  await visitor.expectHeading('Sign in to Customers');
  expect(page.url()).toBe(`${other}/.portcullis/login?refused=1`);
  await visitor.leave(() => page.getByRole('link', { name: 'Sign in', exact: true }).click());
  await expect(visitor.heading()).toHaveText('Overview');

  // Somebody else's browser, which has asked as well.
  const thief = await newVisitor({ gateway, abroad });
  await thief.page.goto(`${other}/sims`);
  await thief.expectHeading('Sign in');
  await page.context().clearCookies({ name: session.name, domain: OTHER_HOST });
  await page.route(`${other}/.portcullis/arrive?*`, (route) => route.abort());
  const kept = arrival(page, other);
  await page.goto(`${other}/sims`).catch(() => {});
  await thief.page.goto(await kept);
  await thief.expectHeading('Sign in to Customers');
  expect((await thief.page.context().cookies(other)).map((cookie) => cookie.name)).not.toContain(session.name);
});

test('a page of the other site that is open when the session ends goes on after a login beside it, at the first', async ({ sites, newVisitor }) => {
  const { gateway, other, abroad } = sites;
  const visitor = await newVisitor({ gateway, abroad });
  const { page } = visitor;
  await visitor.signIn('/sims');
  await page.goto(`${other}/page/bare`);
  await page.getByLabel('Notes').fill('half a sentence');
  await gateway.portcullis(['session', 'revoke', '--user', visitor.email]);
  const notice = page.getByRole('region', { name: 'Your session' });
  await expect(async () => {
    await page.evaluate(() => dispatchEvent(new Event('focus')));
    await expect(notice.getByText("You're signed out")).toBeVisible({ timeout: 1000 });
  }).toPass();
  const [window] = await Promise.all([page.waitForEvent('popup'), notice.getByRole('button', { name: 'Sign in' }).click()]);
  const beside = new Visitor({ ...visitor, page: window, person: visitor });
  await beside.expectHeading('Sign in');
  expect(window.url().startsWith(`${gateway.url}/.portcullis/login`)).toBe(true);
  await beside.givePassword();
  await beside.expectHeading('Enter your code');
  const code = await beside.authenticator.code();
  await Promise.all([window.waitForEvent('close'), beside.field('Six-digit code').fill(code)]);
  await expect(notice.getByText("You're signed in again")).toBeVisible();
  await expect(page.getByLabel('Notes')).toHaveValue('half a sentence');
  expect(await page.evaluate(async () => (await fetch('/api/sims')).status)).toBe(200);
});

/** The address with a code that a page is led to next. */
async function arrival(page, other) {
  const request = await page.waitForRequest((one) => one.url().startsWith(`${other}/.portcullis/arrive?code=`));
  return request.url();
}

/** In a page of the portal: what its script would do. */
function openSocket() {
  Object.assign(globalThis, { heard: 0, ended: false });
  const socket = new WebSocket(`${location.origin.replace('https', 'wss')}/live`);
  socket.onmessage = () => (globalThis.heard += 1);
  socket.onclose = () => (globalThis.ended = true);
}
