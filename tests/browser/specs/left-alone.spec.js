// Users who walk away and come back: to a login that was left half-way, to a session that has ended meanwhile.

import { expect, test } from '../support/world.js';

const TARGET = '/sims?q=a';
const LATER = 40;
const AFTER_LUNCH = 70;
const NEXT_DAY = 24 * 60;

// A gateway of its own: nobody else should meet what was written tomorrow.
test.use({ settings: { log: { level: 'info' } } });

test.afterEach(async ({ gateway }) => {
  await gateway.passTime(0);
});

test('a first login that was left for too long begins again, with a word why', async ({ visitor, gateway }) => {
  await visitor.open(TARGET);
  await visitor.givePassword();
  await visitor.scan();
  await visitor.fillEnrolment();
  await timePasses(visitor, LATER);
  await visitor.press('Save');
  await visitor.expectHeading('Sign in');
  await expect(visitor.page.getByRole('status')).toContainText('took too long');
  expect(await gateway.devices(visitor.email)).toEqual([]);

  await visitor.arriveAt(TARGET);
});

test('a later login that was left for too long begins again, with a word why', async ({ newVisitor, gateway }) => {
  const before = await newVisitor({ gateway });
  await before.signIn();
  const visitor = await newVisitor({ gateway, person: before, pocket: before.pocket });
  await visitor.open(TARGET);
  await visitor.givePassword();
  await timePasses(visitor, LATER);
  await visitor.giveCode();
  await visitor.expectHeading('Sign in');
  await expect(visitor.page.getByRole('status')).toContainText('took too long');
  await visitor.arriveAt(TARGET);
});

for (const [what, minutes] of [['idle for longer than it may be', AFTER_LUNCH], ['left until the next day', NEXT_DAY]]) {
  test(`a session that was ${what} has ended, and the way back is the usual one`, async ({ visitor, gateway, portal }) => {
    await visitor.signIn('/sims');
    await timePasses(visitor, minutes);
    portal.requests.length = 0;
    expect((await visitor.fetch('/api/sims')).status).toBe(401);
    await visitor.open(TARGET);
    await visitor.expectHeading('Sign in');
    expect(portal.requests).toEqual([]);
    await visitor.arriveAt(TARGET);
    expect(visitor.passed).toContain('Enter your code');
  });
}

test('a login page that was open all night still works', async ({ visitor }) => {
  await visitor.open(TARGET);
  await timePasses(visitor, NEXT_DAY);
  await visitor.givePassword();
  await visitor.arriveAt(TARGET);
});

/** Time passes for the gateway and for the user's phone alike. */
async function timePasses(visitor, minutes) {
  await visitor.gateway.passTime(minutes);
  visitor.pocket.ahead = minutes;
}
