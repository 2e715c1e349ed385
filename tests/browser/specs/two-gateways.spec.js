// Two gateways that share the database, the key and a real Redis: users do not notice which of them they are at.

import path from 'node:path';

import { Gateway } from '../support/gateway.js';
import { Redis } from '../support/redis.js';
import { Switch } from '../support/switch.js';
import { expect, test as base } from '../support/world.js';

const test = base.extend({
  redis: async ({ folder }, use) => {
    const redis = await Redis.start(path.join(folder, 'redis'));
    await use(redis);
    await redis.stop();
  },

  balancer: async ({}, use) => {
    const balancer = await Switch.start();
    await use(balancer);
    await balancer.stop();
  },

  pair: async ({ folder, certificate, portal, redis, balancer }, use, testInfo) => {
    const shared = path.join(folder, `pair-${testInfo.testId}`);
    const start = (name) =>
      Gateway.start({
        folder: path.join(shared, name),
        certificate,
        upstream: portal.url,
        publicPort: balancer.port,
        settings: {
          sessions: { store: redis.url },
          storage: { database: `sqlite:${path.join(shared, 'portcullis.db')}`, key_file: path.join(shared, 'portcullis.key') },
        },
      });
    const [a, b] = [await start('a'), await start('b')];
    balancer.to(a);
    await use({ a, b });
    await Promise.all([a.stop(), b.stop()]);
  },
});

test('logged in at one gateway, known at the other, out at both within a second', async ({ newVisitor, pair, balancer, redis }) => {
  const { a, b } = pair;
  const visitor = await newVisitor({ gateway: a });
  await visitor.signIn('/sims?q=a');
  expect(redis.keys().length).toBeGreaterThan(0);
  expect(redis.keys().join(), 'a session is filed under its hash').not.toContain(await sessionCookie(visitor));

  balancer.to(b);
  await visitor.page.reload();
  await visitor.expectPortal('/sims?q=a');
  expect(await visitor.whoami()).toMatchObject({ email: visitor.email, level: 'two_factor' });

  balancer.to(a);
  await visitor.page.reload();
  await visitor.expectPortal('/sims?q=a');
  await visitor.page.evaluate((url) => {
    const live = new WebSocket(url);
    live.onmessage = () => (window.ticks = (window.ticks ?? 0) + 1);
    live.onclose = () => (window.liveClosed = Date.now());
  }, `${a.url.replace('https', 'wss')}/live`);
  await expect.poll(() => visitor.page.evaluate(() => window.ticks)).toBeGreaterThan(2);

  await b.portcullis(['session', 'revoke', '--user', visitor.email]);
  const revoked = Date.now();
  await expect.poll(async () => (await visitor.fetch('/api/sims')).status, { intervals: [20] }).toBe(401);
  expect(Date.now() - revoked, 'ms until requests are refused').toBeLessThan(1000);
  await expect.poll(() => visitor.page.evaluate(() => window.liveClosed ?? 0), { intervals: [20] }).toBeGreaterThan(0);
  expect((await visitor.page.evaluate(() => window.liveClosed)) - revoked, 'ms until the live connection is cut').toBeLessThan(1000);

  balancer.to(b);
  await expect.poll(async () => (await visitor.fetch('/api/sims')).status, { intervals: [20] }).toBe(401);
  expect(Date.now() - revoked, 'ms until the other gateway refuses').toBeLessThan(1000);
});

test('a login may change gateways at every step', async ({ newVisitor, pair, balancer }) => {
  const { a, b } = pair;
  const visitor = await newVisitor({ gateway: a });
  const turn = (gateway) => balancer.to(gateway);
  await visitor.open('/sims?q=a');
  turn(b);
  await visitor.givePassword();
  turn(a);
  await visitor.scan();
  await visitor.enrol({ code: visitor.authenticator.wrongCode() });
  turn(b);
  await visitor.enrol();
  turn(a);
  await visitor.storeRecoveryCodes();
  turn(b);
  await visitor.page.reload();
  await visitor.expectPortal('/sims?q=a');

  turn(a);
  await visitor.signOut();
  turn(b);
  await visitor.open('/sims?q=b');
  await visitor.expectHeading('Sign in');
  await visitor.givePassword();
  turn(a);
  const code = await visitor.authenticator.code();
  await visitor.typeCode(code);
  await visitor.expectPortal('/sims?q=b');

  turn(b);
  const again = await newVisitor({ gateway: b, person: visitor, pocket: visitor.pocket });
  await again.open('/sims');
  await again.givePassword();
  await again.typeCode(code);
  await expect(again.alert()).toContainText('used already');
});

test('a gateway that is killed hands its users over', async ({ newVisitor, pair, balancer }) => {
  const { a, b } = pair;
  const visitor = await newVisitor({ gateway: a });
  await visitor.open('/sims?q=a');
  await visitor.givePassword();
  await visitor.scan();
  await a.kill();
  balancer.to(b);
  await visitor.arriveAt('/sims?q=a');
  await a.resume();
  balancer.to(a);
  await visitor.page.reload();
  await visitor.expectPortal('/sims?q=a');
});

async function sessionCookie(visitor) {
  const cookies = await visitor.page.context().cookies();
  return cookies.find((cookie) => cookie.name === visitor.gateway.cookies.session).value;
}
