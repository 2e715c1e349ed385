// The whole way without a mouse. Whoever cannot see the focus is lost, so it is looked for at every stop.

import { Authenticator } from '../support/authenticator.js';
import { expect, test } from '../support/world.js';

test('everything works with the keyboard alone', async ({ visitor }) => {
  const { page } = visitor;
  const { keyboard } = page;
  const enter = () => visitor.leave(() => keyboard.press('Enter'));

  await visitor.open('/sims?q=a');
  await keyboard.type(visitor.email);
  await keyboard.press('Tab');
  await keyboard.type('not the right password');
  await enter();
  await expect(visitor.alert()).toContainText('do not match');

  // The e-mail is still there and the password field has the focus.
  await keyboard.type(visitor.password);
  await enter();
  await visitor.expectHeading('Set up your authenticator app');
  visitor.pocket.authenticator = new Authenticator(await visitor.typedKey());
  await tabTo(page, visitor.field('Enter the six digits the app shows'));
  await keyboard.type(visitor.authenticator.wrongCode());
  await tabTo(page, visitor.field('Give this device a name'));
  await keyboard.type('Work phone');
  await tabTo(page, visitor.button('Save'));
  await enter();

  // After the error the focus is where it has to be put right.
  await expect(visitor.alert()).toContainText('did not work');
  await expect(visitor.field('Enter the six digits the app shows')).toBeFocused();
  await keyboard.press('ControlOrMeta+a');
  await keyboard.type(await visitor.authenticator.code());
  await enter();
  await visitor.expectHeading('Save your recovery codes');
  await visitor.readRecoveryCodes();
  await tabTo(page, visitor.button("I've saved them"));
  await enter();
  await visitor.expectPortal('/sims?q=a');

  await visitor.open('/.portcullis/account');
  await tabTo(page, visitor.button('Sign out'));
  await enter();
  await visitor.expectHeading('You are signed out');
  await tabTo(page, page.getByRole('link', { name: 'Sign in again' }));
  await enter();
  await keyboard.type(visitor.email);
  await keyboard.press('Tab');
  await keyboard.type(visitor.password);
  await enter();
  await visitor.expectHeading('Enter your code');
  await expect(visitor.field('Six-digit code')).toBeFocused();
  const code = await visitor.authenticator.code();
  await visitor.leave(() => keyboard.type(code));
  await visitor.expectPortal('/');
});

/** Presses Tab until the focus is on `target`; at every stop something has to show where the focus is. */
async function tabTo(page, target) {
  for (let presses = 0; presses < 20; presses += 1) {
    await page.keyboard.press('Tab');
    const stop = await page.evaluate(() => {
      const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(document.activeElement);
      const isShown = (outlineStyle !== 'none' && parseFloat(outlineWidth) >= 1) || boxShadow !== 'none';
      return { isShown, isPage: document.activeElement !== document.body, what: document.activeElement.outerHTML.slice(0, 120) };
    });
    if (stop.isPage) {
      expect(stop.isShown, `the focus can be seen on ${stop.what}`).toBe(true);
    }
    if (await target.evaluate((element) => element === document.activeElement)) {
      return;
    }
  }
  throw new Error(`cannot be reached with Tab: ${target}`);
}
