// Forms that are sent after the session has run out: their users sign in, are asked, and the portal gets exactly what
// was typed, once. Or it does not, because they say so, or because they are somebody else.

import { examine } from '../support/measure.js';
import { expect, test } from '../support/world.js';

const FORM = '/sims/new';
const AFTER_LUNCH = 70;
const KEPT = 'Your form was kept';
// What encodings get wrong: signs of their own, several bytes a character, line breaks, what no form can be sure of.
const LABEL = 'Pump & Co = 100 % + “ü” 📡 ';
const NOTES = 'first\nsecond\n\n\tand <b>tags</b> & "quotes"';
const FILE = { name: 'liste “ü”.csv', mimeType: 'text/csv', buffer: Buffer.from([0, 0xff, 13, 10, 0xc3, 0x28, 45, 45, 10]) };

// A gateway of its own: nobody else should meet what was written after lunch.
test.use({ settings: { log: { level: 'info' } } });

test.beforeEach(({ portal }) => {
  portal.forms.length = 0;
});

test.afterEach(async ({ gateway }) => {
  await gateway.passTime(0);
});

for (const [kind, fill, button] of [['text', fillText, 'Add'], ['a file', fillFile, 'Upload']]) {
  test(`a form of ${kind} is sent after the login exactly as it would have been before`, async ({ visitor, portal }) => {
    await visitor.signIn(FORM);
    await fill(visitor);
    await visitor.press(button);
    await visitor.expectPortal('/sims?q=saved');

    await visitor.open(FORM);
    await fill(visitor);
    await afterLunch(visitor);
    await visitor.press(button);
    await signInAgain(visitor);
    await visitor.expectHeading(KEPT);
    await expect(visitor.page.getByText(FORM, { exact: true })).toBeVisible();
    expect(portal.forms, 'nothing is sent before its user says so').toHaveLength(1);
    await visitor.press('Send');
    await visitor.expectPortal('/sims?q=saved');
    expect(portal.forms).toHaveLength(2);
    const [before, after] = portal.forms.map(withoutBoundary);
    expect(after).toEqual(before);
    expect(after.body.length).toBeGreaterThan(100);
  });
}

test('a form is sent once, however often its user presses, goes back and reloads', async ({ visitor, portal }) => {
  await comesTooLate(visitor);
  await visitor.page.keyboard.press('Enter');
  await visitor.expectPortal('/sims?q=saved');
  expect(portal.forms).toHaveLength(1);
  await visitor.page.reload();
  await visitor.page.goBack();
  await visitor.expectHeading('This form is no longer kept');
  await visitor.page.reload();
  await visitor.expectHeading('This form is no longer kept');
  await visitor.leave(() => visitor.page.getByRole('link', { name: 'Go to the start page' }).click());
  await visitor.expectPortal('/');
  expect(portal.forms).toHaveLength(1);
});

test('a press that is a double one sends once and shows what the portal says', async ({ visitor, portal }) => {
  await comesTooLate(visitor);
  await visitor.leave(() => visitor.button('Send').dblclick());
  await visitor.expectPortal('/sims?q=saved');
  expect(portal.forms).toHaveLength(1);
});

test('a form that is not to be sent is dropped, and its page is there again', async ({ visitor, portal }) => {
  await comesTooLate(visitor);
  const kept = visitor.page.url();
  await visitor.press('Do not send it');
  await visitor.expectPortal(FORM);
  await visitor.page.goto(kept);
  await visitor.expectHeading('This form is no longer kept');
  expect(portal.forms).toEqual([]);
});

test('a portal that finds fault with the form gets the next one as well', async ({ visitor, portal }) => {
  await comesTooLate(visitor, '');
  await visitor.press('Send');
  await expect(visitor.page.getByText('A label is missing.')).toBeVisible();
  await visitor.field('Label').fill('Pump 12');
  await visitor.press('Add');
  await visitor.expectPortal('/sims?q=saved');
  expect(portal.forms.map(({ target }) => target)).toEqual(Array(2).fill(`${FORM}?tab=1&q=%2F+x`));
  expect(String(portal.forms[1].body)).toBe('label=Pump+12');
});

test('somebody else who signs in next sees nothing of it, and it is gone', async ({ visitor, newVisitor, gateway, portal }) => {
  const other = await newVisitor({ gateway });
  await visitor.signIn(FORM);
  await fillText(visitor);
  await afterLunch(visitor);
  await visitor.press('Add');
  await visitor.expectHeading('Sign in');
  const { email, password } = visitor;
  Object.assign(visitor, { email: other.email, password: other.password, pocket: { recoveryCodes: [], ahead: AFTER_LUNCH } });
  const seen = [];
  visitor.page.on('response', async (answer) => seen.push(await answer.text().catch(() => '')));
  await visitor.arriveAt('/');
  expect((await visitor.whoami()).email).toBe(other.email);
  expect(seen.filter((text) => text.includes(KEPT) || text.includes('Pump')), 'nothing of it').toEqual([]);
  expect(seen.length).toBeGreaterThan(2);
  expect(portal.forms).toEqual([]);
  Object.assign(visitor, { email, password });
});

test('ten tabs whose session runs out at once, a form in each: one login, and all ten are sent', async ({ visitor, portal }) => {
  test.slow();
  await visitor.signIn();
  const tabs = await Promise.all(Array.from({ length: 10 }, () => visitor.newTab()));
  await Promise.all(tabs.map((tab, number) => tab.open(`${FORM}?tab=${number}`)));
  await Promise.all(tabs.map((tab, number) => fillText(tab, `Pump ${number}`)));
  await afterLunch(visitor);
  await Promise.all(tabs.map((tab) => tab.press('Add')));
  await Promise.all(tabs.map((tab) => tab.expectHeading('Sign in')));
  expect(portal.forms).toEqual([]);

  const [first, ...others] = tabs;
  await first.page.bringToFront();
  await signInAgain(first);
  // Their login pages are still on the screen. Some load them again, some sign in: signed in is signed in.
  await Promise.all(others.map((tab, number) => (number % 2 ? tab.page.reload() : tab.givePassword())));
  await Promise.all(tabs.map((tab) => tab.expectHeading(KEPT)));
  await Promise.all(tabs.map((tab) => tab.press('Send')));
  await Promise.all(tabs.map((tab) => tab.expectPortal('/sims?q=saved')));
  const sent = portal.forms.map(({ target, body }) => [target, new URLSearchParams(String(body)).get('label')]);
  expect(sent.sort()).toEqual(tabs.map((_, number) => [`${FORM}?tab=${number}&q=%2F+x`, `Pump ${number}`]));
});

test('a form that is too large is not lost either: its page says how to send it all the same', async ({ visitor, portal }) => {
  const notes = `${'a long story '.repeat(5500)}\nthe end`;
  await visitor.signIn(FORM);
  await visitor.field('Label').fill(LABEL);
  await visitor.field('Notes').fill(notes);
  await afterLunch(visitor);
  await visitor.press('Add');
  await visitor.expectHeading('Your form has not been sent');
  await examine(visitor.page, 'form-too-large');
  // As the page says: sign in elsewhere, come back, go back, send again.
  const [opened] = await Promise.all([
    visitor.page.context().waitForEvent('page'),
    visitor.page.getByRole('link', { name: 'Sign in in a new window' }).click(),
  ]);
  const elsewhere = Object.assign(await visitor.newTab(), { page: opened });
  await elsewhere.expectHeading('Sign in');
  await elsewhere.arriveAt('/');
  await visitor.page.bringToFront();
  await visitor.page.goBack();
  await expect(visitor.field('Notes')).toHaveValue(notes);
  await visitor.press('Add');
  await visitor.expectPortal('/sims?q=saved');
  expect(portal.forms).toHaveLength(1);
  const sent = new URLSearchParams(String(portal.forms[0].body));
  expect(sent.get('label')).toBe(LABEL);
  expect(sent.get('notes')).toBe(notes.replaceAll('\n', '\r\n'));
});

test('every page about a saved form reads well', async ({ visitor, portal }) => {
  const { page } = visitor;
  await comesTooLate(visitor);
  const kept = page.url();
  await examine(page, 'form-kept');
  await page.locator('input[name=csrf]').first().evaluate((input) => (input.value = 'of another day'));
  await visitor.press('Send');
  await visitor.expectHeading('Your form is still here');
  await examine(page, 'form-still-here');
  await visitor.leave(() => page.getByRole('link', { name: 'Go to your form' }).click());
  await visitor.expectHeading(KEPT);
  await portal.stop();
  await visitor.press('Send');
  await expect(page.getByText('The portal is not answering')).toBeVisible();
  await examine(page, 'form-portal-down');
  await portal.resume();
  await visitor.leave(() => page.getByRole('link', { name: 'Go to your form' }).click());
  expect(page.url()).toBe(kept);
  await visitor.press('Send');
  await visitor.expectPortal('/sims?q=saved');
  await page.goto(kept);
  await visitor.expectHeading('This form is no longer kept');
  await examine(page, 'form-gone');
});

async function fillText(visitor, label = LABEL) {
  await visitor.field('Label').fill(label);
  await visitor.field('Notes').fill(NOTES);
}

async function fillFile(visitor) {
  await visitor.field('Batch').fill(LABEL);
  await visitor.field('List').setInputFiles(FILE);
}

/** The session runs out, unnoticed; the user's phone goes with the time. */
async function afterLunch(visitor) {
  await visitor.gateway.passTime(AFTER_LUNCH);
  visitor.pocket.ahead = AFTER_LUNCH;
}

async function signInAgain(visitor) {
  await visitor.expectHeading('Sign in');
  await visitor.givePassword();
  await visitor.giveCode();
}

/** Up to the page that asks whether to send the form. */
async function comesTooLate(visitor, label) {
  await visitor.signIn(FORM);
  await fillText(visitor, label);
  await afterLunch(visitor);
  await visitor.press('Add');
  await signInAgain(visitor);
  await visitor.expectHeading(KEPT);
}

/** A browser makes up another boundary each time. */
function withoutBoundary({ target, type, body }) {
  const boundary = /boundary=(\S+)/.exec(type)?.[1];
  const text = body.toString('latin1');
  const unbound = (from) => (boundary === undefined ? from : from.replaceAll(boundary, 'BOUNDARY'));
  return { target, type: unbound(type), body: unbound(text) };
}
