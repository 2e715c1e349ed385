// Whoever signs out leaves nothing behind in the browser for whoever uses it next: nothing stored, nothing cached, no
// session; at our own page and at the portal's. And signing in again works as ever.

import { expect, test } from '../support/world.js';

test.use({
  settings: { portal: { logout_paths: ['/auth/logout'] }, sessions: { clear_on_sign_out: ['cache', 'storage'] } },
});

const WAYS = [
  ['at our page', (visitor) => visitor.signOut()],
  ['at the portal’s', async (visitor) => {
    await visitor.open('/sims');
    await visitor.leave(() => visitor.page.getByRole('link', { name: 'Log out' }).click());
    await visitor.expectHeading('Sign in');
  }],
];

for (const [where, signOut] of WAYS) {
  test(`signing out ${where} clears what the browser kept of the portal, and the next login goes well`, async ({ visitor, gateway, portal }) => {
    const { page } = visitor;
    portal.requests.length = 0;
    await visitor.signIn('/sims');
    await page.evaluate(fillStores);
    expect(await page.evaluate(readStores)).toEqual({ local: 'Ada', session: 'Ada', database: 1, caches: ['portal'] });
    // A portal that lets its answers be cached is not asked twice.
    for (let times = 0; times < 2; times += 1) {
      await visitor.open('/api/cached');
      await expect(page.getByText('Pump 11')).toBeVisible();
    }
    expect(asked(portal, '/api/cached')).toBe(1);
    const before = await cookieNames(visitor);
    expect(before).toEqual(expect.arrayContaining([gateway.cookies.session, 'portal-session', 'portal-language']));

    await signOut(visitor);
    const after = await cookieNames(visitor);
    expect(after).not.toContain(gateway.cookies.session);
    expect(after).not.toContain(gateway.cookies.forms);
    // The portal's own are the portal's to take away: a browser that is told to would take those of its neighbours too.
    expect(after).toContain('portal-language');
    expect(after.includes('portal-session')).toBe(where === 'at our page');
    for (let back = 0; back < 3; back += 1) {
      await page.goBack();
      await expect(page.getByText(/Confidential|Pump/)).toHaveCount(0);
    }
    await visitor.open('/api/cached');
    await visitor.expectHeading('Sign in');
    await visitor.open('/sims');
    await visitor.expectHeading('Sign in');
    // The page is whole: style, script and picture come along.
    await expect(visitor.button('Sign in')).toHaveCSS('border-radius', '10px');
    await expect(page.getByRole('button', { name: 'Show password' })).toBeVisible();
    expect(await page.evaluate(readStores), 'nothing of the user is left').toEqual({ local: null, session: null, database: 0, caches: [] });
    await visitor.arriveAt('/sims');
    await visitor.open('/api/cached');
    await expect(page.getByText('Pump 11')).toBeVisible();
    expect(asked(portal, '/api/cached'), 'the portal is asked again').toBe(2);
  });
}

test('a tab that is left open shows nothing new once another one has signed out', async ({ visitor }) => {
  await visitor.signIn('/sims');
  await visitor.page.evaluate(fillStores);
  const other = await visitor.newTab();
  await other.signOut();
  expect((await visitor.fetch('/api/sims')).status).toBe(401);
  await visitor.page.reload();
  await visitor.expectHeading('Sign in');
  expect(await visitor.page.evaluate(readStores)).toEqual({ local: null, session: null, database: 0, caches: [] });
});

/** In the page: what a portal's script may keep. */
async function fillStores() {
  localStorage.setItem('who', 'Ada');
  sessionStorage.setItem('who', 'Ada');
  await new Promise((resolve, reject) => {
    const opening = indexedDB.open('portal', 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore('sims');
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      opening.result.close();
      resolve();
    };
  });
  const cache = await caches.open('portal');
  await cache.put('/offline', new Response('Confidential'));
}

/** In the page: what is left of it. */
async function readStores() {
  return {
    local: localStorage.getItem('who'),
    session: sessionStorage.getItem('who'),
    database: (await indexedDB.databases()).length,
    caches: await caches.keys(),
  };
}

function asked(portal, target) {
  return portal.requests.filter((request) => request === `GET ${target}`).length;
}

async function cookieNames(visitor) {
  return (await visitor.page.context().cookies()).map(({ name }) => name);
}
