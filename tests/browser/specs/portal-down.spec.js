// The portal is down: users are told that it is not their fault, scripts get it in a form that they can read.

import { expect, test } from '../support/world.js';

test('while the portal is down a page says so, and “Try again” works when it is back', async ({ visitor, portal }) => {
  await visitor.signIn('/sims?q=a');
  await portal.stop();

  const answer = await visitor.open('/sims?q=a');
  expect(answer.status()).toBe(502);
  expect(answer.headers()['content-type']).toContain('text/html');
  await visitor.expectHeading('The portal is not answering');
  await visitor.leave(() => visitor.page.getByRole('link', { name: 'Try again' }).click());
  await visitor.expectHeading('The portal is not answering');

  await portal.resume();
  await visitor.leave(() => visitor.page.getByRole('link', { name: 'Try again' }).click());
  await visitor.expectPortal('/sims?q=a');
});

test('while the portal is down a script gets a problem in JSON', async ({ visitor, portal }) => {
  await visitor.signIn('/sims');
  await portal.stop();
  const answer = await visitor.fetch('/api/sims');
  await portal.resume();
  expect(answer.status).toBe(502);
  expect(answer.type).toContain('application/problem+json');
  expect(JSON.parse(answer.text)).toMatchObject({ status: 502, title: expect.any(String) });
  expect((await visitor.fetch('/api/sims')).status).toBe(200);
});

test('while the portal is down users still log in', async ({ visitor, portal }) => {
  await portal.stop();
  await visitor.open('/sims?q=a');
  await visitor.givePassword();
  await visitor.enrol();
  await visitor.storeRecoveryCodes();
  await visitor.expectHeading('The portal is not answering');
  await portal.resume();
  await visitor.page.reload();
  await visitor.expectPortal('/sims?q=a');
});
