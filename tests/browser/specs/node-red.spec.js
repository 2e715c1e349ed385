// A portal that nobody wrote for this: Node-RED, unchanged. It is single-page, holds a WebSocket open and posts JSON.
// Once with sessions in the database and once in a real Redis.

import path from 'node:path';

import { Gateway } from '../support/gateway.js';
import { NodeRed } from '../support/node-red.js';
import { Redis } from '../support/redis.js';
import { expect, test } from '../support/world.js';

const FLOW = JSON.stringify([
  { id: 'a1', type: 'tab', label: 'Pumps' },
  { id: 'a2', type: 'inject', z: 'a1', name: 'pump', repeat: '0.5', once: true, payload: 'pump is on', payloadType: 'str', x: 200, y: 100, wires: [['a3']] },
  { id: 'a3', type: 'debug', z: 'a1', name: 'seen', active: true, tosidebar: true, complete: 'payload', targetType: 'msg', x: 400, y: 100, wires: [] },
]);

for (const store of ['database', 'redis']) {
  test(`Node-RED works behind the wall, with sessions in ${store}`, async ({ folder, certificate, newVisitor }, testInfo) => {
    const own = path.join(folder, testInfo.testId);
    const started = [];
    const start = async (starting) => {
      const program = await starting;
      started.unshift(program);
      return program;
    };
    try {
      const nodeRed = await start(NodeRed.start(path.join(own, 'node-red')));
      const redis = store === 'redis' ? await start(Redis.start(path.join(own, 'redis'))) : undefined;
      const gateway = await start(
        Gateway.start({
          folder: path.join(own, 'gateway'),
          certificate,
          upstream: nodeRed.url,
          settings: { sessions: { store: redis?.url ?? 'database' } },
        }),
      );
      await useNodeRed(await newVisitor({ gateway, viewport: { width: 1280, height: 800 } }));
    } finally {
      for (const program of started) {
        await program.stop();
      }
    }
  });
}

async function useNodeRed(visitor) {
  const { page } = visitor;
  visitor.portalMark = '#red-ui-header-button-deploy';
  const channels = [];
  page.on('websocket', (channel) => {
    const seen = { url: channel.url(), messages: 0 };
    channel.on('framereceived', ({ payload }) => (seen.messages += String(payload).includes('pump is on') ? 1 : 0));
    channel.on('close', () => (seen.closed = Date.now()));
    channels.push(seen);
  });

  await test.step('the editor loads after login', async () => {
    await visitor.signIn('/');
    await visitor.button('No, do not enable notifications').click();
    // The tour that it gives to newcomers begins by itself.
    await page.locator('.red-ui-tourGuide-popover button:has(.fa-times)').click();
    await expect(page.locator('.red-ui-tourGuide-shade')).toHaveCount(0);
    await expect(page.locator('#red-ui-palette').getByText('inject', { exact: true })).toBeVisible();
    await expect.poll(() => channels.length).toBe(1);
    expect(channels[0].url).toBe(`${visitor.gateway.url.replace('https', 'wss')}/comms`);
  });

  await test.step('a flow is imported and deployed', async () => {
    await page.keyboard.press('ControlOrMeta+i');
    await page.locator('#red-ui-clipboard-dialog-import-text').fill(FLOW);
    // The dialog looks at the text when a key is let go.
    await page.locator('#red-ui-clipboard-dialog-import-text').press('End');
    await page.locator('#red-ui-clipboard-dialog-ok').click();
    await expect(page.locator('#red-ui-workspace-tabs').getByText('Pumps')).toBeVisible();
    await page.locator('#red-ui-header-button-deploy').click();
    await expect(page.getByText('Successfully deployed')).toBeVisible();
  });

  await test.step('its messages arrive over the WebSocket and go on arriving', async () => {
    await page.locator('#red-ui-tab-debug-link-button').click();
    await expect(page.locator('.red-ui-debug-msg-payload').first()).toContainText('pump is on');
    const before = channels[0].messages;
    await expect.poll(() => channels[0].messages, { timeout: 15_000 }).toBeGreaterThan(before + 10);
    expect(channels).toHaveLength(1);
    expect(channels[0].closed).toBeUndefined();
  });

  await test.step('logout in another tab cuts the WebSocket and the way back in', async () => {
    const other = await visitor.newTab();
    await other.open('/.portcullis/account');
    const before = Date.now();
    await other.press('Sign out');
    await other.expectHeading('You are signed out');
    await expect.poll(() => channels[0].closed ?? 0, { intervals: [20] }).toBeGreaterThan(0);
    expect(channels[0].closed - before, 'ms until the WebSocket is closed').toBeLessThan(1000);
    expect((await visitor.fetch('/flows')).status).toBe(401);
    await page.reload();
    await visitor.expectHeading('Sign in');
  });

  await test.step('and the next login finds everything as it was', async () => {
    await visitor.arriveAt('/');
    await expect(page.locator('#red-ui-workspace-tabs').getByText('Pumps')).toBeVisible();
    await expect.poll(() => channels.at(-1).messages).toBeGreaterThan(0);
  });
}
