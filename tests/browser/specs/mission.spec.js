// The way that every user goes: the first login with its enrolment, the later ones, and out.

import { scannedText } from '../support/measure.js';
import { expect, test } from '../support/world.js';

const CODE_REFUSED = /did not work/;

test('the first login leads past the QR code to the page first asked for', async ({ visitor, portal }) => {
  const { page } = visitor;

  await test.step('a page of the portal leads to the login page, and nothing reaches the portal', async () => {
    portal.requests.length = 0;
    await visitor.open('/sims?q=a');
    await visitor.expectHeading('Sign in');
    expect(portal.requests).toEqual([]);
    await expect(visitor.field('E-mail')).toBeFocused();
    await expect(page.getByRole('link', { name: /support@example\.com/ })).toHaveAttribute('href', 'mailto:support@example.com');
  });

  await test.step('a wrong password is said, and the e-mail stays', async () => {
    await visitor.givePassword('not the right password');
    await visitor.expectHeading('Sign in');
    await expect(visitor.alert()).toContainText('do not match');
    await expect(visitor.field('E-mail')).toHaveValue(visitor.email);
    await expect(visitor.field('Password')).toHaveValue('');
    await expect(visitor.field('Password')).toBeFocused();
  });

  let key;
  await test.step('the right password leads to the QR code, which a camera can read', async () => {
    await visitor.givePassword();
    await visitor.expectHeading('Set up your authenticator app');
    await visitor.scan();
    key = visitor.authenticator.key;
    const link = await page.getByRole('link', { name: 'Open the authenticator app' }).getAttribute('href');
    const [label, parameters] = link.split('?');
    expect(decodeURIComponent(label)).toBe(`otpauth://totp/IoT Connectivity:${visitor.email}`);
    expect(parameters).toBe(`secret=${key}&issuer=IoT%20Connectivity&algorithm=SHA1&digits=6&period=30`);
    expect(Buffer.from(key, 'ascii').length, '20 bytes in base32').toBe(32);
    const qr = page.locator('.scan svg').first();
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      expect(await scannedText(qr), `the QR code in ${colorScheme}`).toBe(link);
    }
    await page.emulateMedia({ colorScheme: 'light' });
  });

  await test.step('a wrong code is said, and neither key nor name is lost', async () => {
    await visitor.enrol({ code: visitor.authenticator.wrongCode(), name: 'Ada’s phone' });
    await expect(visitor.alert()).toContainText(CODE_REFUSED);
    expect(await visitor.typedKey()).toBe(key);
    await expect(visitor.field('Give this device a name')).toHaveValue('Ada’s phone');
    expect(await visitor.gateway.devices(visitor.email)).toEqual([]);
    expect(portal.requests, 'half a login reaches nothing').toEqual([]);
  });

  await test.step('the right code saves the device and shows ten recovery codes', async () => {
    await visitor.fillEnrolment({ code: await visitor.authenticator.currentCode(), name: 'Ada’s phone' });
    await visitor.press('Save');
    await visitor.expectHeading('Save your recovery codes');
    const codes = await visitor.readRecoveryCodes();
    expect(new Set(codes).size).toBe(10);
    const devices = await visitor.gateway.devices(visitor.email);
    expect(devices.map((device) => device.name)).toEqual(['Ada’s phone']);
  });

  await test.step('and then the page first asked for', async () => {
    await visitor.press("I've saved them");
    await visitor.expectPortal('/sims?q=a');
    await expect(page.locator('#query')).toHaveText('a');
    expect(await visitor.whoami()).toMatchObject({ email: visitor.email, level: 'two_factor' });
  });

  await test.step('the portal is told who asks, and never sees our cookie', async () => {
    const headers = JSON.parse((await visitor.fetch('/headers', { 'Remote-User': 'admin' })).text);
    expect(headers['remote-user']).toBe(visitor.email);
    expect(headers['remote-email']).toBe(visitor.email);
    expect(headers['remote-name']).toBe(visitor.name);
    expect(headers.cookie ?? '').not.toContain('portcullis');
  });
});

test('the session cookie is out of reach of scripts, other sites and plain HTTP', async ({ visitor, gateway }) => {
  await visitor.signIn();
  const cookies = await visitor.page.context().cookies();
  const session = cookies.filter((cookie) => cookie.name === gateway.cookies.session);
  expect(session).toHaveLength(1);
  expect(session[0]).toMatchObject({ secure: true, httpOnly: true, sameSite: 'Lax', path: '/', expires: -1 });
  expect(session[0].value).toMatch(/^[\w-]{43}$/);
  const names = cookies.map((cookie) => cookie.name).filter((name) => !name.startsWith('__Host-'));
  expect(names, 'cookies without the prefix').toEqual([]);
});

test('a later login takes password and code, and no code twice', async ({ visitor, newVisitor, gateway }) => {
  await visitor.signIn();
  await visitor.signOut();

  await visitor.open('/sims?q=later');
  await visitor.givePassword();
  await visitor.expectHeading('Enter your code');
  await visitor.typeCode(visitor.authenticator.wrongCode());
  await expect(visitor.alert()).toContainText(CODE_REFUSED);
  const code = await visitor.authenticator.code();
  await visitor.typeCode(code);
  await visitor.expectPortal('/sims?q=later');

  // Somebody who looked over the shoulder, in a browser of their own.
  const thief = await newVisitor({ gateway, person: visitor, pocket: visitor.pocket });
  await thief.open('/sims');
  await thief.givePassword();
  await thief.typeCode(code);
  await thief.expectHeading('Enter your code');
  await expect(thief.alert()).toContainText('used already');

  await thief.giveCode();
  await thief.expectPortal('/sims');
});

test('a code with a gap in the middle is the same code', async ({ newVisitor, gateway }) => {
  const visitor = await newVisitor({ gateway, javaScript: false });
  await visitor.signIn();
  await visitor.open('/.portcullis/account');
  await visitor.press('Sign out');
  await visitor.open('/sims');
  await visitor.givePassword();
  const code = await visitor.authenticator.code();
  await visitor.typeCode(`${code.slice(0, 3)} ${code.slice(3)} `);
  await visitor.expectPortal('/sims');
});

test('a recovery code lets in once and not twice', async ({ visitor }) => {
  const { page } = visitor;
  await visitor.signIn();
  const [first, second] = visitor.recoveryCodes;

  const signInWith = async (code) => {
    await visitor.signOut();
    await visitor.open('/sims?q=r');
    await visitor.givePassword();
    await visitor.leave(() => page.getByRole('link', { name: 'Use a recovery code' }).click());
    await visitor.expectHeading('Use a recovery code');
    await visitor.giveRecoveryCode(code);
  };

  await signInWith(first);
  await visitor.expectPortal('/sims?q=r');
  await visitor.open('/.portcullis/account');
  await expect(page.getByText('9 recovery codes are left')).toBeVisible();

  await signInWith(first);
  await expect(visitor.alert()).toContainText(CODE_REFUSED);
  await visitor.giveRecoveryCode(` ${second.toUpperCase()} `);
  await visitor.expectPortal('/sims?q=r');
});

test('after logout the portal is out of reach and going back shows nothing', async ({ visitor, portal }) => {
  const { page } = visitor;
  await visitor.signIn('/sims?q=a');
  const recoveryCode = visitor.recoveryCodes[0];
  await page.getByRole('link', { name: 'Overview' }).click();
  await visitor.expectPortal('/');
  await visitor.signOut();

  portal.requests.length = 0;
  for (let back = 0; back < 8; back += 1) {
    await page.goBack();
    const text = await page.locator('body').innerText();
    expect(text, `after ${back + 1} times back: ${page.url()}`).not.toMatch(/Confidential|SIM list/);
    expect(text).not.toContain(recoveryCode);
    expect(text).not.toContain(visitor.authenticator.key);
  }
  await visitor.open('/sims');
  await visitor.expectHeading('Sign in');
  expect(portal.requests).toEqual([]);
});

test('the script of a page whose session has ended is told where to log in', async ({ visitor, portal }) => {
  await visitor.signIn();
  const other = await visitor.newTab();
  await other.signOut();
  portal.requests.length = 0;
  const answer = await visitor.fetch('/api/sims');
  expect(portal.requests).toEqual([]);
  expect(answer.status).toBe(401);
  expect(answer.type).toContain('application/problem+json');
  expect(JSON.parse(answer.text)).toMatchObject({ status: 401, login_url: expect.stringContaining('/.portcullis/login') });
});

test('a live connection is carried through and ends with the session', async ({ visitor, gateway }) => {
  const { page } = visitor;
  await visitor.signIn('/sims');
  await page.evaluate((url) => {
    window.ticks = 0;
    const live = new WebSocket(url);
    live.onmessage = () => (window.ticks += 1);
    live.onclose = (event) => (window.liveClosed = { at: Date.now(), code: event.code });
  }, `${gateway.url.replace('https', 'wss')}/live`);
  await expect.poll(() => page.evaluate(() => window.ticks)).toBeGreaterThan(3);

  const other = await visitor.newTab();
  await other.open('/.portcullis/account');
  const before = Date.now();
  await other.press('Sign out');
  await expect.poll(() => page.evaluate(() => window.liveClosed?.at ?? 0)).toBeGreaterThan(0);
  expect((await page.evaluate(() => window.liveClosed.at)) - before).toBeLessThan(1000);
});
