// Users go back, reload, open ten tabs, press twice, leave and come back. They end at the page they asked for.

import { expect, test } from '../support/world.js';

const TARGET = '/sims?q=a';

/** The pages on the way, with what leads to the next one. */
const FIRST_LOGIN = [
  ['the login page', (visitor) => visitor.open(TARGET)],
  ['a wrong password', (visitor) => visitor.givePassword('not the right password')],
  ['the QR code', (visitor) => visitor.givePassword()],
  ['a wrong code', async (visitor) => {
    await visitor.scan();
    await visitor.enrol({ code: visitor.authenticator.wrongCode() });
  }],
  ['the recovery codes', (visitor) => visitor.enrol()],
];

const LATER_LOGIN = [
  ['the login page', (visitor) => visitor.open(TARGET)],
  ['the code page', (visitor) => visitor.givePassword()],
  ['a wrong code', (visitor) => visitor.typeCode(visitor.authenticator.wrongCode())],
];

const HABITS = [
  ['reloads', (visitor) => visitor.page.reload()],
  ['goes back', (visitor) => inHistory(visitor, 'goBack')],
  ['goes back and forth', async (visitor) => {
    await inHistory(visitor, 'goBack');
    await inHistory(visitor, 'goForward');
  }],
  ['opens the portal again', (visitor) => visitor.open(TARGET)],
  ['opens the login page', (visitor) => visitor.open(`/.portcullis/login?rd=${encodeURIComponent(TARGET)}`)],
];

for (const [habit, act] of HABITS) {
  test(`whoever ${habit} at any page of the first login gets there`, async ({ newVisitor, gateway }) => {
    for (let stop = 1; stop <= FIRST_LOGIN.length; stop += 1) {
      await test.step(`at ${FIRST_LOGIN[stop - 1][0]}`, async () => {
        const visitor = await newVisitor({ gateway });
        await walk(visitor, FIRST_LOGIN.slice(0, stop));
        await act(visitor);
        await arriveFromAnywhere(visitor);
        expect(await visitor.gateway.devices(visitor.email)).toHaveLength(1);
      });
    }
  });

  test(`whoever ${habit} at any page of a later login gets there`, async ({ newVisitor, gateway }) => {
    for (let stop = 1; stop <= LATER_LOGIN.length; stop += 1) {
      await test.step(`at ${LATER_LOGIN[stop - 1][0]}`, async () => {
        const visitor = await enrolledVisitor(newVisitor, gateway);
        await walk(visitor, LATER_LOGIN.slice(0, stop));
        await act(visitor);
        await arriveFromAnywhere(visitor);
      });
    }
  });
}

test('going back asks to send a form again only where something wrong was typed', async ({ visitor }) => {
  await walk(visitor, FIRST_LOGIN);
  await visitor.storeRecoveryCodes();
  await visitor.signOut();
  await visitor.open('/sims');
  const asked = [];
  for (let back = 1; visitor.page.url() !== 'about:blank' && back < 30; back += 1) {
    if (await asksToSendAgain(visitor, 'goBack')) {
      asked.push(`after ${back} times back`);
    }
  }
  // The wrong password and the wrong code: what was sent there is not kept by the browser, on purpose.
  expect(asked).toHaveLength(2);
});

test('two tabs with different pages both get there', async ({ visitor }) => {
  const second = await visitor.newTab();
  await visitor.open('/sims?q=one');
  await second.open('/sims?q=two');
  await visitor.arriveAt('/sims?q=one');
  await second.arriveAt('/sims?q=two');
});

test('two tabs that are both at the QR code show the same one', async ({ visitor }) => {
  const second = await visitor.newTab();
  await visitor.open('/sims?q=one');
  await second.open('/sims?q=two');
  await visitor.givePassword();
  await second.givePassword();
  await visitor.page.bringToFront();
  await visitor.scan();
  await visitor.arriveAt('/sims?q=one');
  // The code that was typed in the other tab has been used: this one has to move on all the same.
  await second.arriveAt('/sims?q=two');
  expect(await visitor.gateway.devices(visitor.email)).toHaveLength(1);
});

test('ten tabs at once all get to their own page', async ({ visitor }) => {
  const tabs = await openTen(visitor);
  const [first, ...others] = tabs;
  await first.tab.arriveAt(first.target);
  await Promise.all(
    others.map(async ({ tab, target }) => {
      // Their login pages are still on the screen. Signed in is signed in: no further code is asked for.
      await tab.givePassword();
      await tab.arriveAt(target);
    }),
  );
});

test('ten passwords at once, one enrolment, and all tabs get to their own page', async ({ visitor }) => {
  const tabs = await openTen(visitor);
  await Promise.all(tabs.map(({ tab }) => tab.givePassword()));
  const last = tabs[9];
  await last.tab.arriveAt(last.target);
  for (const { tab, target } of tabs.slice(0, 9)) {
    await tab.page.reload();
    await tab.arriveAt(target);
  }
});

test('a login that was left half-way does not stand in the way of a new one', async ({ visitor, newVisitor, gateway }) => {
  const other = await newVisitor({ gateway });
  await visitor.open(TARGET);
  await visitor.givePassword();
  await visitor.expectHeading('Set up your authenticator app');
  const abandoned = await visitor.typedKey();

  const second = await visitor.newTab();
  Object.assign(second, { email: other.email, password: other.password });
  await second.open('/sims?q=b');
  await second.arriveAt('/sims?q=b');
  expect(second.authenticator.key).not.toBe(abandoned);
  expect((await second.whoami()).email).toBe(other.email);
  expect(await gateway.devices(visitor.email)).toEqual([]);
});

test('“not you?” leads back to the start with the page first asked for', async ({ visitor }) => {
  await visitor.signIn();
  await visitor.signOut();
  await visitor.open(TARGET);
  await visitor.givePassword();
  await visitor.leave(() => visitor.page.getByRole('link', { name: /Not you/ }).click());
  await visitor.expectHeading('Sign in');
  await visitor.arriveAt(TARGET);
});

for (const javaScript of [true, false]) {
  test(`pressing Save twice saves once, ${javaScript ? 'with' : 'without'} script`, async ({ newVisitor, gateway }) => {
    const visitor = await newVisitor({ gateway, javaScript });
    await visitor.open(TARGET);
    await visitor.givePassword();
    await visitor.scan();
    await visitor.fillEnrolment();
    await visitor.button('Save').dblclick();
    await visitor.expectHeading('Save your recovery codes');
    await visitor.arriveAt(TARGET);
    expect(await gateway.devices(visitor.email)).toHaveLength(1);
    expect(visitor.recoveryCodes).toHaveLength(10);
  });

  test(`pressing every button twice gets there, ${javaScript ? 'with' : 'without'} script`, async ({ newVisitor, gateway }) => {
    const visitor = await newVisitor({ gateway, javaScript });
    visitor.press = (name) => leaveTwice(visitor, () => visitor.button(name).dblclick());
    await visitor.signIn(TARGET);
    await visitor.open('/.portcullis/account');
    await visitor.press('Sign out');
    await visitor.signIn(TARGET);
  });
}

/** The second press may break off what the first has begun; what counts is where it all ends. */
async function leaveTwice(visitor, act) {
  const before = visitor.page.url();
  await act();
  for (;;) {
    try {
      return await visitor.page.waitForURL((url) => url.href !== before, { waitUntil: 'load' });
    } catch (error) {
      if (!error.message.includes('ERR_ABORTED')) throw error;
    }
  }
}

for (const [fate, act] of [
  ['gone', (context) => context.clearCookies()],
  ['unknown', async (context) => {
    const cookies = await context.cookies();
    await context.addCookies(cookies.map((cookie) => ({ ...cookie, value: 'A'.repeat(cookie.value.length) })));
  }],
]) {
  for (const [kind, steps] of [['first', FIRST_LOGIN], ['later', LATER_LOGIN]]) {
    test(`when the cookie is ${fate} at any page of a ${kind} login, the login goes on`, async ({ newVisitor, gateway }) => {
      for (let stop = 1; stop <= steps.length; stop += 1) {
        await test.step(`at ${steps[stop - 1][0]}`, async () => {
          const visitor = await (kind === 'later' ? enrolledVisitor(newVisitor, gateway) : newVisitor({ gateway }));
          await walk(visitor, steps.slice(0, stop));
          await act(visitor.page.context());
          await arriveFromAnywhere(visitor);
        });
      }
    });
  }
}

test('no return address leads to another site', async ({ visitor }) => {
  await visitor.signIn();
  await visitor.signOut();
  const evil = [
    'https://evil.example/', '//evil.example/', '///evil.example', '/\\evil.example', '\\\\evil.example', 'https:evil.example',
    '/\t/evil.example', '/%09/evil.example', '/\n/evil.example', 'javascript:alert(1)', 'data:text/html,x', '.evil.example', '@evil.example',
    '/.portcullis/logout', '%2f%2fevil.example', '/..//evil.example', 'https://portal.test.evil.example/', '/%5cevil.example',
  ];
  for (const rd of evil) {
    await test.step(rd, async () => {
      await visitor.page.context().clearCookies();
      await visitor.open(`/.portcullis/login?rd=${encodeURIComponent(rd)}`);
      await visitor.expectHeading('Sign in');
      const remembered = visitor.page.locator('input[name=rd]');
      expect(await remembered.count() ? await remembered.getAttribute('value') : '/', 'what the page remembers').toBe('/');
    });
  }
  await visitor.open(`/.portcullis/login?rd=${encodeURIComponent('//evil.example/')}`);
  await visitor.arriveAt('/');
});

test('signed in already, the login page leads on, and not to another site', async ({ visitor }) => {
  await visitor.signIn();
  for (const [rd, target] of [['/sims?q=b', '/sims?q=b'], ['https://evil.example/', '/']]) {
    await visitor.open(`/.portcullis/login?rd=${encodeURIComponent(rd)}`);
    await visitor.arriveAt(target);
  }
});

/** Somebody who has a device already, at a browser that does not know them yet. */
async function enrolledVisitor(newVisitor, gateway) {
  const before = await newVisitor({ gateway });
  await before.signIn();
  return newVisitor({ gateway, person: before, pocket: before.pocket });
}

/** Ten tabs of one browser, each asking for a page of its own. */
async function openTen(visitor) {
  const tabs = await Promise.all(
    Array.from({ length: 10 }, async (_, number) => ({ tab: await visitor.newTab(), target: `/sims?q=${number}` })),
  );
  await Promise.all(tabs.map(({ tab, target }) => tab.open(target)));
  return tabs;
}

/** Goes through the history. Where the browser asks whether to send a form again, it is sent again. */
async function inHistory(visitor, direction) {
  if (await asksToSendAgain(visitor, direction)) {
    // Its page may be there and not yet be the one at hand: whoever presses then presses once more.
    await expect(() => visitor.page.reload()).toPass({ timeout: 10_000 });
  }
}

/** Goes one page back or forward, and says whether all that is there is the browser's question to send a form again. */
async function asksToSendAgain({ page }, direction) {
  try {
    await page[direction]();
    return false;
  } catch (error) {
    if (!error.message.includes('ERR_CACHE_MISS')) {
      throw error;
    }
    // The browser's own page comes in a process of its own, and a moment later.
    await expect.poll(() => page.url()).toBe('chrome-error://chromewebdata/');
    return true;
  }
}

/** Goes through the pages given; those that come by themselves are waited for. */
async function walk(visitor, steps) {
  for (const [, act] of steps) {
    await act(visitor);
  }
}

/** From wherever the browser is: an empty tab means that there was nowhere to go back to. */
async function arriveFromAnywhere(visitor) {
  if (visitor.page.url() === 'about:blank') {
    await visitor.open(TARGET);
  }
  await visitor.arriveAt(TARGET, { atMost: 12 });
}
