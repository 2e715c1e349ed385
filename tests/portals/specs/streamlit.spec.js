// An application on Streamlit: one page whose every click is a message on its WebSocket, with files in and out.

import path from 'node:path';

import { behind, endSession, expect, firstLogin, listen, saved, signInElsewhere } from '../support/behind.js';
import { SUITE, Server, python } from '../support/server.js';

const test = behind(startStreamlit);

test('widgets work over the WebSocket, and a file goes up and comes down', async ({ visitor }) => {
  const { page } = visitor;
  const faults = listen(visitor);
  await firstLogin(visitor, '/?view=tab&q=a%20b#live');

  await test.step('what is typed is worked on', async () => {
    await type(visitor, 'pump');
  });

  await test.step('a file comes back as it was', async () => {
    const bytes = Buffer.from(Array.from({ length: 200_000 }, (_, at) => (at * at) % 251));
    await page.locator('input[type=file]').setInputFiles({ name: 'readings “ü”.bin', mimeType: 'application/octet-stream', buffer: bytes });
    await expect(page.getByText('200000 bytes')).toBeVisible();
    const { name, bytes: back } = await saved(page, () => visitor.button('Fetch').click());
    expect(name).toBe('fetched.bin');
    expect(back.equals(bytes)).toBe(true);
  });
  expect(faults).toEqual([]);
});

test('the end of the session cuts the WebSocket, and after a login in another tab the page goes on', async ({ visitor }) => {
  const { page } = visitor;
  const opened = page.waitForEvent('websocket');
  await firstLogin(visitor, '/');
  await type(visitor, 'pump');
  await expect(page.getByText(/^Ticks: [1-9]/)).toBeVisible();

  const socket = await opened;
  const cut = socket.waitForEvent('close');
  await endSession(visitor);
  await cut;
  await expect(page.getByText('Connecting')).toBeVisible();

  await signInElsewhere(visitor);
  await expect(page.getByText('Connecting')).toBeHidden();
  await expect(page.getByText('Filtered by: pump')).toBeVisible();
  await type(visitor, 'tracker');
});

/**
 * Types into the field, and waits for what the application makes of it. Streamlit itself forgets an input now and then that
 * comes while its script runs, 1 of 60 without the gateway, and so it is typed again, as its users do.
 */
async function type(visitor, text) {
  await expect(async () => {
    await visitor.field('Filter').fill('');
    await visitor.field('Filter').fill(text);
    await visitor.field('Filter').press('Enter');
    await expect(visitor.page.getByText(`Filtered by: ${text}`)).toBeVisible({ timeout: 6_000 });
  }).toPass({ timeout: 60_000 });
}

async function startStreamlit(folder) {
  return Server.start({
    folder,
    command: (_, port) => [
      python('streamlit'), 'run', path.join(SUITE, 'streamlit_app.py'), '--server.address=127.0.0.1', `--server.port=${port}`,
      '--server.headless=true', '--browser.gatherUsageStats=false',
    ],
    ready: '/_stcore/health',
  });
}
