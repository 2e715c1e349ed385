// Before the day from which a second factor is mandatory it can be put off, and from that day on it cannot.

import { expect, test } from '../support/world.js';

const DAY = 24 * 60 * 60 * 1000;

test('“Not now” leads to the portal until the day comes, then to the QR code', async ({ newVisitor, gateway }) => {
  const mandatoryFrom = new Date(Math.floor(Date.now() / 1000) * 1000 + 10 * DAY + 60_000);
  await gateway.stop();
  await gateway.resume({ second_factor: { mandatory_from: mandatoryFrom } });
  const visitor = await newVisitor({ gateway });
  const { page } = visitor;

  await test.step('the date and the days left are told', async () => {
    await visitor.open('/sims?q=a');
    await visitor.givePassword();
    await visitor.expectHeading('Set up your authenticator app');
    const offer = page.getByText('You can also do this later').locator('..');
    await expect(offer).toContainText('You have 10 days left');
    await expect(offer).toContainText(String(mandatoryFrom.getUTCFullYear()));
    await expect(offer).toContainText(new RegExp(`\\b${mandatoryFrom.getUTCDate()}\\b`));
  });

  await test.step('putting it off leads to the page first asked for, with one factor', async () => {
    await visitor.press('Not now');
    await visitor.expectPortal('/sims?q=a');
    expect(await visitor.whoami()).toMatchObject({ email: visitor.email, level: 'one_factor' });
    expect(await gateway.devices(visitor.email)).toEqual([]);
  });

  await test.step('from the day on, the same session is asked to enrol first', async () => {
    await gateway.stop();
    await gateway.resume({ second_factor: { mandatory_from: new Date(Date.now() - DAY) } });
    const api = await visitor.fetch('/api/sims');
    expect(api.status, 'a script is refused').toBe(401);
    await visitor.open('/sims?q=b');
    await visitor.expectHeading('Set up your authenticator app');
    await expect(visitor.button('Not now')).toHaveCount(0);
    await visitor.arriveAt('/sims?q=b');
    expect(await visitor.whoami()).toMatchObject({ level: 'two_factor' });
  });

  await test.step('and a new login has no choice', async () => {
    const other = await newVisitor({ gateway });
    await other.open('/sims');
    await other.givePassword();
    await other.expectHeading('Set up your authenticator app');
    await expect(other.button('Not now')).toHaveCount(0);
  });
});
