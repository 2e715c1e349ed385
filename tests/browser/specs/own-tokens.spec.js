// Tokens that users make for themselves on the account page: with and without script, narrow and wide, light and dark, with a
// screen reader.

import https from 'node:https';

import { examine } from '../support/measure.js';
import { expect, test } from '../support/world.js';

test.use({ settings: { tokens: { self_service: true } } });

for (const javaScript of [true, false]) {
  test(`a token is made, used, seen and revoked ${javaScript ? 'with' : 'without'} script`, async ({ newVisitor, gateway }) => {
    const visitor = await newVisitor({ gateway, javaScript });
    const { page } = visitor;
    const look = (name) => (javaScript ? test.step(name, () => examine(page, name)) : undefined);
    await visitor.signIn();
    await visitor.open('/.portcullis/account');
    await look('account-no-tokens');
    await visitor.leave(() => page.getByRole('link', { name: 'Create a token' }).click());
    await visitor.expectHeading('Create an access token');
    await look('new-token');

    await visitor.field('Name').fill('back/up');
    await visitor.field('Limit it to paths (optional)').fill('api');
    await visitor.press('Create token');
    await expect(visitor.alert()).toContainText(['letters, digits', 'one path per line']);
    await expect(visitor.field('Name')).toHaveValue('back/up');
    await expect(visitor.field('Limit it to paths (optional)')).toHaveValue('api');
    await look('new-token-wrong');
    await visitor.field('Name').fill('Backup script');
    await visitor.field('Limit it to paths (optional)').fill('/sims\n/api/*');
    await visitor.field('Expires after').selectOption('7 days');
    await visitor.press('Create token');
    await visitor.expectHeading('Copy your token');
    const token = await page.locator('#token').innerText();
    await look('token-made');
    expect(await status(gateway, '/sims', token)).toBe(200);
    expect(await status(gateway, '/', token)).toBe(401);

    await visitor.leave(() => page.getByRole('link', { name: "I've copied it" }).click());
    await visitor.expectHeading('Your account');
    await expect(page.getByRole('listitem').filter({ hasText: 'Backup-script' })).toContainText('/sims, /api/*');
    expect(await page.content()).not.toContain(token);
    await look('account-tokens');
    await visitor.press('Revoke Backup-script');
    await expect(page.getByText('Backup-script')).toBeHidden();
    await expect.poll(() => status(gateway, '/sims', token)).toBe(401);
    expect(gateway.newLog()).not.toContain(token);
  });
}

/** What a program is answered that has the token. */
function status(gateway, target, token) {
  const { port } = new URL(gateway.url);
  const headers = { host: new URL(gateway.url).host, authorization: `Bearer ${token}` };
  return new Promise((resolve, reject) => {
    https
      .get({ host: '127.0.0.1', port, path: target, headers, servername: 'portal.test', rejectUnauthorized: false, agent: false }, (answer) => {
        answer.resume();
        resolve(answer.statusCode);
      })
      .once('error', reject);
  });
}
