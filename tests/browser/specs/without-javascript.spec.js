// The whole way with scripts switched off.

import { expect, test } from '../support/world.js';

test('everything works without script', async ({ newVisitor, gateway }) => {
  const visitor = await newVisitor({ gateway, javaScript: false });
  const { page } = visitor;

  await visitor.open('/sims?q=a');
  await visitor.givePassword('not the right password');
  await expect(visitor.alert()).toContainText('do not match');
  await expect(visitor.field('E-mail')).toHaveValue(visitor.email);
  await visitor.givePassword();
  await visitor.expectHeading('Set up your authenticator app');
  const key = await visitor.typedKey();
  await visitor.scan();
  await visitor.enrol({ code: visitor.authenticator.wrongCode() });
  await expect(visitor.alert()).toContainText('did not work');
  expect(await visitor.typedKey()).toBe(key);
  await visitor.enrol();
  await visitor.expectHeading('Save your recovery codes');
  await visitor.storeRecoveryCodes();
  await visitor.expectPortal('/sims?q=a');

  await visitor.signOut();
  await visitor.open('/sims?q=b');
  await visitor.givePassword();
  await visitor.giveCode();
  await visitor.expectPortal('/sims?q=b');

  await visitor.signOut();
  await visitor.open('/sims?q=c');
  await visitor.givePassword();
  await page.getByRole('link', { name: 'Use a recovery code' }).click();
  await visitor.giveRecoveryCode(visitor.recoveryCodes[0]);
  await visitor.expectPortal('/sims?q=c');
});

test('nothing is offered that only works with script', async ({ newVisitor, gateway }) => {
  const visitor = await newVisitor({ gateway, javaScript: false });
  await visitor.open('/sims');
  await expect(visitor.page.getByRole('button', { name: /password/ })).toHaveCount(0);
  await visitor.givePassword();
  await expect(visitor.button('Copy key')).toHaveCount(0);
  await visitor.enrol();
  for (const name of ['Copy', 'Download', 'Print']) {
    await expect(visitor.button(name)).toHaveCount(0);
  }
});
