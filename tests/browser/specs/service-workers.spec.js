// Service workers of the portal: none comes between a user and our pages, and none outlives the session.

import { expect, test } from '../support/world.js';

// A gateway of its own: it is started anew with other settings.
test.use({ settings: { log: { level: 'info' } } });

test.afterEach(async ({ gateway }) => {
  await gateway.stop();
  await gateway.resume({ portal: { service_worker: 'refuse' } });
});

test('a worker that could see our pages cannot be registered, and one that could not is the portal’s business', async ({ visitor }) => {
  await visitor.signIn('/sims');
  expect(await visitor.page.evaluate(register, ['/sw.js', '/'])).toBe('refused');
  expect(await visitor.page.evaluate(register, ['/app/sw.js', '/'])).toBe('refused');
  expect(await visitor.page.evaluate(register, ['/app/sw.js', '/.portcullis/'])).toBe('refused');
  expect(await visitor.page.evaluate(register, ['/app/sw.js', '/app/'])).toBe('registered');
  await visitor.open('/app/');
  await visitor.expectHeading('Shell');
  await visitor.open('/.portcullis/account');
  await visitor.expectHeading('Your account');
});

test('a worker from before the gateway is gone within two navigations, and the user is at the login', async ({ visitor, gateway, portal, certificate }) => {
  await gateway.stop();
  const end = await portal.serveAlone({ port: gateway.port, ...certificate });
  await visitor.open('/sims');
  expect(await visitor.page.evaluate(register, ['/sw.js', '/'])).toBe('registered');
  await visitor.open('/.portcullis/login');
  await visitor.expectHeading('Shell');
  await end();
  await gateway.resume();
  await expectLogin(visitor, '/.portcullis/login');
  await visitor.arriveAt('/');
});

test('an app that is allowed its worker never sees our pages, and has none without a session', async ({ visitor, gateway }) => {
  await gateway.stop();
  await gateway.resume({ portal: { service_worker: 'allow' } });
  await visitor.signIn('/sims');
  expect(await visitor.page.evaluate(register, ['/app/sw.js', '/'])).toBe('registered');
  await visitor.open('/sims');
  await visitor.expectHeading('Shell');
  await visitor.open('/.portcullis/account');
  await visitor.expectHeading('Your account');
  await gateway.portcullis(['session', 'revoke', '--user', visitor.email]);
  await expectLogin(visitor, '/sims');
  expect(await visitor.page.evaluate(async () => (await navigator.serviceWorker.getRegistrations()).length)).toBe(0);
});

/** Opens a page once, and again if that did not do it. */
async function expectLogin(visitor, target) {
  await visitor.open(target);
  const isThere = () => expect(visitor.heading()).toHaveText('Sign in', { timeout: 8000 });
  await isThere().catch(async () => {
    await visitor.open(target);
    await isThere();
  });
}

/** In the page: registers a worker and waits until it is in charge. */
async function register([script, scope]) {
  try {
    const registration = await navigator.serviceWorker.register(script, { scope });
    const worker = registration.installing ?? registration.waiting ?? registration.active;
    while (worker.state !== 'activated') {
      await new Promise((resolve) => worker.addEventListener('statechange', resolve, { once: true }));
    }
    return 'registered';
  } catch {
    return 'refused';
  }
}
