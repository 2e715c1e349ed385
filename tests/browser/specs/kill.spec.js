// The gateway is killed, without a warning, between any two steps and in the middle of some. Started again, it is in the
// old state or in the new one, never in between, and the same browser goes on to the end.

import { setTimeout as pause } from 'node:timers/promises';

import { expect, test } from '../support/world.js';

const TARGET = '/sims?q=a';

const FIRST_LOGIN = [
  ['opening the portal', (visitor) => visitor.open(TARGET)],
  ['a wrong password', (visitor) => visitor.givePassword('not the right password')],
  ['the password', (visitor) => visitor.givePassword()],
  ['a wrong code', async (visitor) => {
    await visitor.scan();
    await visitor.enrol({ code: visitor.authenticator.wrongCode() });
  }],
  ['Save', (visitor) => visitor.enrol()],
  ['the recovery codes', (visitor) => visitor.storeRecoveryCodes()],
];

const LATER_LOGIN = [
  ['opening the portal', (visitor) => visitor.open(TARGET)],
  ['the password', (visitor) => visitor.givePassword()],
  ['a wrong code', (visitor) => visitor.typeCode(visitor.authenticator.wrongCode())],
  ['the code', (visitor) => visitor.giveCode()],
];

for (let killed = 1; killed <= FIRST_LOGIN.length; killed += 1) {
  test(`killed after ${FIRST_LOGIN[killed - 1][0]} of the first login, nothing is lost and nothing is half`, async ({ visitor, gateway }) => {
    for (const [index, [, act]] of FIRST_LOGIN.entries()) {
      const shown = await keyOnScreen(visitor);
      await act(visitor);
      if (index + 1 === killed) {
        await gateway.killAndResume();
      }
      const isEnrolled = index >= 4;
      expect(await gateway.devices(visitor.email)).toHaveLength(isEnrolled ? 1 : 0);
      const after = await keyOnScreen(visitor);
      if (shown && after) {
        expect(after, 'nobody scans twice').toBe(shown);
      }
    }
    await visitor.expectPortal(TARGET);
    await visitor.page.reload();
    await visitor.expectPortal(TARGET);
    expect(await visitor.whoami()).toMatchObject({ email: visitor.email, level: 'two_factor' });
    expect(visitor.recoveryCodes).toHaveLength(10);
  });
}

for (let killed = 1; killed <= LATER_LOGIN.length; killed += 1) {
  test(`killed after ${LATER_LOGIN[killed - 1][0]} of a later login, the login goes on`, async ({ newVisitor, gateway }) => {
    const before = await newVisitor({ gateway });
    await before.signIn();
    const visitor = await newVisitor({ gateway, person: before, pocket: before.pocket });
    for (const [index, [, act]] of LATER_LOGIN.entries()) {
      await act(visitor);
      if (index + 1 === killed) {
        await gateway.killAndResume();
      }
    }
    await visitor.expectPortal(TARGET);
    await visitor.page.reload();
    await visitor.expectPortal(TARGET);
    expect(await gateway.devices(visitor.email)).toHaveLength(1);
  });
}

test('a used code, a used recovery code and an ended session stay so when the gateway is killed right after', async ({ newVisitor, gateway }) => {
  const before = await newVisitor({ gateway });
  await before.signIn();
  const visitor = await newVisitor({ gateway, person: before, pocket: before.pocket });
  const again = await newVisitor({ gateway, person: before, pocket: before.pocket });

  await visitor.open(TARGET);
  await visitor.givePassword();
  const code = await visitor.authenticator.code();
  await visitor.typeCode(code);
  await gateway.killAndResume();
  await again.open(TARGET);
  await again.givePassword();
  await again.typeCode(code);
  await expect(again.alert()).toContainText('used already');

  await again.leave(() => again.page.getByRole('link', { name: 'Use a recovery code' }).click());
  await again.giveRecoveryCode(again.recoveryCodes[0]);
  await gateway.killAndResume();
  await again.page.reload();
  await again.expectPortal(TARGET);

  const session = await visitor.page.context().cookies();
  await visitor.signOut();
  await gateway.killAndResume();
  await visitor.page.context().addCookies(session);
  await visitor.open(TARGET);
  await visitor.expectHeading('Sign in');
  await visitor.givePassword();
  await visitor.leave(() => visitor.page.getByRole('link', { name: 'Use a recovery code' }).click());
  await visitor.giveRecoveryCode(visitor.recoveryCodes[0]);
  await expect(visitor.alert()).toContainText('did not work');
});

// Somewhere in here the request is read, the database writes, and the answer leaves.
for (const wait of [0, 4, 8, 16, 32]) {
  test(`killed ${wait} ms after Save was pressed, the device is there or it is not`, async ({ visitor, gateway }) => {
    await visitor.open(TARGET);
    await visitor.givePassword();
    await visitor.scan();
    const { key } = visitor.authenticator;
    await visitor.fillEnrolment();
    await killDuring(visitor, gateway, wait, () => visitor.button('Save').click());

    const wasSaved = (await gateway.devices(visitor.email)).length === 1;
    test.info().annotations.push({ type: 'state', description: wasSaved ? 'new' : 'old' });
    await openAgain(visitor);
    await visitor.arriveAt(TARGET);
    expect(await visitor.whoami()).toMatchObject({ level: 'two_factor' });
    // Whether or not it was saved, the key that the user has scanned is the one that counts.
    expect(visitor.authenticator.key).toBe(key);
    expect(await gateway.devices(visitor.email)).toHaveLength(1);
    if (visitor.recoveryCodes.length === 0) {
      await visitor.open('/.portcullis/recovery-codes');
      await visitor.storeRecoveryCodes();
    }
    expect(visitor.recoveryCodes, 'the recovery codes are still to be had').toHaveLength(10);
  });

  test(`killed ${wait} ms after a code was typed, the login is done or it is not`, async ({ newVisitor, gateway }) => {
    const before = await newVisitor({ gateway });
    await before.signIn();
    const visitor = await newVisitor({ gateway, person: before, pocket: before.pocket });
    await visitor.open(TARGET);
    await visitor.givePassword();
    const code = await visitor.authenticator.code();
    await killDuring(visitor, gateway, wait, () => visitor.field('Six-digit code').fill(code));
    await openAgain(visitor);
    await visitor.arriveAt(TARGET);
    expect(await gateway.devices(visitor.email)).toHaveLength(1);
  });
}

async function keyOnScreen(visitor) {
  return (await visitor.page.locator('#key').count()) > 0 ? visitor.typedKey() : undefined;
}

/** Kills the gateway a moment after the form that `act` sends has left the browser, and starts it again. */
async function killDuring({ page }, gateway, wait, act) {
  const killed = page
    .waitForEvent('request', (request) => request.method() === 'POST')
    .then(() => pause(wait))
    .then(() => gateway.kill());
  await Promise.all([act(), killed]);
  await gateway.resume();
}

/** Opens the portal again. The browser may still be busy with its own page about the connection that it lost. */
async function openAgain(visitor) {
  await expect(() => visitor.open(TARGET)).toPass();
}
