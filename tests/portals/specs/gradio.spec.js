// An application on Gradio, whose answers are streams of events that go on for as long as somebody watches.

import path from 'node:path';

import { behind, endSession, expect, firstLogin, listen, saved, signInElsewhere } from '../support/behind.js';
import { SUITE, Server, python } from '../support/server.js';

const test = behind(startGradio, { logout_paths: ['GET /logout'] });

test('a file goes up, is worked on, and comes down; its log-out ends both sessions', async ({ visitor }) => {
  const { page } = visitor;
  const faults = listen(visitor);

  await test.step('after both logins the application is there, with its styles', async () => {
    await logIn(visitor);
  });

  await test.step('the queue works: progress and result arrive as events', async () => {
    const bytes = Buffer.from(Array.from({ length: 200_000 }, (_, at) => (at * at) % 251));
    const events = page.waitForResponse((answer) => answer.url().includes('/queue/data'));
    await page.locator('input[type=file]').first().setInputFiles({ name: 'readings “ü”.bin', mimeType: 'application/octet-stream', buffer: bytes });
    await expect(page.getByText('195.3 KB').first()).toBeVisible();
    await visitor.button('Count').click();
    expect(await (await events).headerValue('content-type')).toContain('text/event-stream');
    await expect(visitor.field('Counted')).toHaveValue('200000 bytes');
    const { bytes: back } = await saved(page, () => page.locator('a[download]').last().click());
    expect(back.equals(bytes)).toBe(true);
  });
  expect(faults).toEqual([]);

  await test.step('its own log-out ends the session of the gateway as well', async () => {
    await page.getByRole('link', { name: 'Log out' }).click();
    await visitor.expectHeading('Sign in');
  });
});

test('the end of the session cuts the stream of events, and after a login in another tab the page goes on', async ({ visitor }) => {
  const { page } = visitor;
  const live = visitor.field('Live');
  await logIn(visitor);
  await visitor.button('Watch').click();
  await expect(live).toHaveValue(/^[1-9]/);
  const cut = page.waitForEvent('requestfailed', (request) => request.url().includes('/queue/data'));
  await endSession(visitor);
  await cut;
  await expect(page.getByText('Connection to the server was lost')).toBeVisible();

  await signInElsewhere(visitor);
  await expect(page.getByText('Connection to the server was lost')).toBeHidden();
  await expect(live).toHaveValue('');
  await visitor.button('Watch').click();
  await expect(live).toHaveValue(/^[1-9]/);
});

/** Both logins: the gateway's for the first time, then Gradio's. */
async function logIn(visitor) {
  const { page } = visitor;
  await firstLogin(visitor, '/?view=tab&q=a%20b#live');
  await visitor.field('username').fill('ada');
  await visitor.field('password').fill('of the portal');
  await visitor.button('Login').click();
  await expect(visitor.button('Count')).toBeVisible();
}

async function startGradio(folder) {
  return Server.start({
    folder,
    command: (_, port) => [python('python'), path.join(SUITE, 'gradio_app.py'), String(port)],
    env: { GRADIO_ANALYTICS_ENABLED: 'False', HF_HUB_OFFLINE: '1', GRADIO_TEMP_DIR: path.join(folder, 'files') },
    ready: '/login',
  });
}
