// What a user does by mail: a forgotten password, an invitation, "This wasn't me". With and without script, narrow and wide,
// light and dark, with a screen reader and by keyboard.

import { MailServer } from '../support/mail.js';
import { examine } from '../support/measure.js';
import { expect, test as base } from '../support/world.js';

const test = base.extend({
  mail: [
    async ({}, use) => {
      const mail = await MailServer.start();
      await use(mail);
      await mail.stop();
    },
    { scope: 'worker' },
  ],
  settings: [async ({ mail }, use) => use({ mail: { url: mail.url, from: 'IoT <no-reply@example.com>' } }), { scope: 'worker' }],
});

for (const javaScript of [true, false]) {
  const how = `${javaScript ? 'with' : 'without'} script`;

  test(`a forgotten password is replaced ${how}`, async ({ newVisitor, gateway, mail }) => {
    const visitor = await newVisitor({ gateway, javaScript });
    const { page } = visitor;
    const look = (name) => (javaScript ? test.step(name, () => examine(page, name)) : undefined);
    await visitor.signIn();
    await mail.link(visitor.email, /new device/);
    await visitor.signOut();
    await visitor.open('/sims');
    await look('login-with-mail');
    await visitor.leave(() => page.getByRole('link', { name: 'Forgot your password?' }).click());
    await visitor.expectHeading('Forgot your password?');
    await look('forgot');
    await expect(visitor.field('E-mail')).toBeFocused();
    await page.keyboard.type(visitor.email);
    await visitor.leave(() => page.keyboard.press('Enter'));
    await visitor.expectHeading('Check your e-mail');
    await look('link-sent');

    const link = await mail.link(visitor.email, /Set a new password/);
    await visitor.open(link);
    await visitor.expectHeading('Set a new password');
    await look('set-password');
    await visitor.field('New password').fill('too short');
    await visitor.press('Set password');
    await expect(visitor.alert()).toContainText('at least 15 characters');
    await look('set-password-short');
    visitor.password = 'lilac tractor under seven moons';
    await visitor.field('New password').fill(visitor.password);
    await visitor.press('Set password');
    await visitor.expectHeading('Sign in');
    await expect(page.getByRole('status')).toContainText('Your password is set');
    await look('login-password-set');
    await visitor.givePassword();
    await visitor.giveCode();
    await visitor.expectPortal('/');
    await visitor.open(link);
    await visitor.expectHeading('This link no longer works');
    await look('link-gone');
    expect(gateway.newLog()).not.toContain(link.split('/').pop());
  });

  test(`an invitation leads to a password and a device ${how}`, async ({ newVisitor, gateway, mail }) => {
    const visitor = await newVisitor({ gateway, javaScript });
    const { page } = visitor;
    const look = (name) => (javaScript ? test.step(name, () => examine(page, name)) : undefined);
    await gateway.portcullis(['user', 'invite', visitor.email]);
    await visitor.open(await mail.link(visitor.email, /Your access/));
    await visitor.expectHeading('Set your password');
    await look('invitation');
    visitor.password = 'lilac tractor under seven moons';
    await visitor.field('New password').fill(visitor.password);
    await visitor.press('Set password');
    await visitor.givePassword();
    await visitor.expectHeading('Set up your authenticator app');
    await visitor.scan();
    await visitor.enrol();
    await visitor.storeRecoveryCodes();
    await visitor.expectPortal('/');

    await visitor.open(await mail.link(visitor.email, /new device/));
    await visitor.expectHeading('Block your account?');
    await look('not-me');
    await visitor.press('Block my account');
    await visitor.expectHeading('Your account is blocked');
    await look('account-blocked');
    await visitor.open('/');
    await visitor.givePassword();
    await expect(visitor.alert()).toContainText('do not match');
  });
}
