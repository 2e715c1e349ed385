// A user who has as many sessions as there may be, where the operator lets no further one in.

import { examine } from '../support/measure.js';
import { expect, test } from '../support/world.js';

test.use({ settings: { sessions: { max_per_user: 1, when_full: 'refuse' } } });

test('a login too many says what to do, and once the other session has ended it goes well', async ({ newVisitor, gateway }) => {
  const before = await newVisitor({ gateway });
  await before.signIn('/sims');
  const visitor = await newVisitor({ gateway, person: before, pocket: before.pocket });
  await visitor.open('/sims');
  await visitor.givePassword();
  await visitor.giveCode();
  await visitor.expectHeading("You're signed in elsewhere");
  await expect(visitor.page.getByText('already signed in on one other device')).toBeVisible();
  await examine(visitor.page, 'refused-when-full');
  await before.open('/sims');
  await before.expectPortal('/sims');

  await before.open('/.portcullis/account');
  await before.signOut();
  await visitor.signIn('/sims');
  await visitor.expectPortal('/sims');
});
