// JupyterLab with nothing set but its token: it refuses foreign hosts, and WebSockets whose Origin is not its Host.

import fs from 'node:fs';
import path from 'node:path';

import { behind, comeBack, endSession, expect, firstLogin, laterLogin, listen, notice, saved, signInBeside, signInElsewhere } from '../support/behind.js';
import { Server, python } from '../support/server.js';

const TOKEN = 'a-token-of-the-portal';
const NOTEBOOK = '/lab/tree/pumps.ipynb';

const test = behind(startJupyterLab, { host: 'upstream', origin: 'upstream', logout_paths: ['/logout'], session_notice: true });

test('a notebook runs, files go up and come down, and its log-out ends both sessions', async ({ visitor }) => {
  const { page } = visitor;
  const faults = listen(visitor);

  await test.step('after both logins the notebook asked for is open', async () => {
    await logIn(visitor);
  });

  await test.step('a cell runs: kernels speak over a WebSocket', async () => {
    await runCell(visitor);
  });

  await test.step('a file goes up, and comes down as it was', async () => {
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, at) => (at * at) % 251));
    const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.locator('[data-command="filebrowser:upload"], [title^="Upload Files"]').first().click()]);
    await chooser.setFiles({ name: 'readings “ü”.bin', mimeType: 'application/octet-stream', buffer: bytes });
    const item = page.locator('.jp-DirListing-item', { hasText: 'readings “ü”.bin' });
    await item.click({ button: 'right' });
    const download = await saved(page, () => page.getByRole('menuitem', { name: 'Download', exact: true }).click());
    expect(download.bytes.equals(bytes)).toBe(true);
  });
  expect(faults).toEqual([]);

  await test.step('its own log-out ends the session of the gateway as well', async () => {
    await visitor.open('/logout');
    await visitor.open('/lab');
    await visitor.expectHeading('Sign in');
  });
});

test('a notebook that is open when the session ends is saved after a login in another tab', async ({ visitor }) => {
  const { page } = visitor;
  const status = page.locator('#jp-main-statusbar');
  const channels = [];
  page.on('websocket', (socket) => socket.url().includes('/channels') && channels.push(socket));
  await logIn(visitor);
  await runCell(visitor);
  await endSession(visitor);
  expect(channels.length).toBeGreaterThan(0);
  await expect.poll(() => channels.every((channel) => channel.isClosed()), { message: 'the kernel is cut off' }).toBe(true);

  // JupyterLab takes this for the end of the kernel, which it is not.
  await visitor.button('Ok').click();
  await page.keyboard.press('ControlOrMeta+s');
  await expect(status.getByText('Saving failed')).toBeVisible();
  await closeDialogs(page);

  await signInElsewhere(visitor);
  await page.keyboard.press('ControlOrMeta+s');
  await expect(status.getByText('Saving completed')).toBeVisible();
  const kept = JSON.parse((await visitor.fetch('/api/contents/pumps.ipynb?content=1')).text);
  expect(kept.content.cells[0].outputs[0].text).toBe('4 pumps\n');
});

test('what is typed while the session is over is saved after a login beside the notebook', async ({ visitor }) => {
  const { page } = visitor;
  await logIn(visitor);
  await runCell(visitor);
  await endSession(visitor);
  await comeBack(visitor);
  await expect(notice(visitor).getByText("You're signed out")).toBeVisible();
  await closeDialogs(page);
  await page.locator('.jp-Notebook .jp-InputArea-editor').first().click();
  await page.keyboard.press('ControlOrMeta+End');
  await page.keyboard.type('  # typed meanwhile');
  await signInBeside(visitor);
  await closeDialogs(page);
  await page.keyboard.press('ControlOrMeta+s');
  await expect(page.locator('#jp-main-statusbar').getByText('Saving completed')).toBeVisible();
  const kept = JSON.parse((await visitor.fetch('/api/contents/pumps.ipynb?content=1')).text);
  expect(kept.content.cells[0].source).toContain('# typed meanwhile');
});

test('a deep link keeps its fragment through the login', async ({ visitor }) => {
  await logIn(visitor);
  await endSession(visitor);
  await laterLogin(visitor, `${NOTEBOOK}#Pumps`);
  await expect(visitor.page.locator('.jp-Notebook').getByText('Pumps', { exact: false }).last()).toBeInViewport();
});

/** Runs the notebook's first cell, as soon as its kernel is there. */
async function runCell({ page }) {
  await expect(page.locator('#jp-main-statusbar').getByText(/Python 3 .* Idle/)).toBeVisible();
  await page.locator('.jp-Notebook .jp-InputArea-editor').first().click();
  await page.keyboard.press('Shift+Enter');
  await expect(page.locator('.jp-OutputArea-output').first()).toHaveText('4 pumps');
}

async function closeDialogs(page) {
  const dialogs = page.locator('.jp-Dialog');
  while ((await dialogs.count()) > 0) {
    await dialogs.last().getByRole('button').last().click();
  }
}

/** Both logins: the gateway's for the first time, then JupyterLab's. */
async function logIn(visitor) {
  const { page } = visitor;
  await firstLogin(visitor, NOTEBOOK, `/login?next=${encodeURIComponent(NOTEBOOK)}`);
  await page.getByLabel('Password or token:').fill(TOKEN);
  await visitor.press('Log in');
  await expect(page).toHaveURL(visitor.gateway.url + NOTEBOOK);
  await expect(page.locator('.jp-Notebook').first()).toBeVisible();
}

async function startJupyterLab(folder) {
  const files = path.join(folder, 'files');
  fs.mkdirSync(files, { recursive: true });
  fs.writeFileSync(path.join(files, 'pumps.ipynb'), JSON.stringify(notebook()));
  return Server.start({
    folder,
    command: (_, port) => [
      python('jupyter-lab'), '--allow-root', '--no-browser', '--ip=127.0.0.1', `--port=${port}`, '--port-retries=0',
      `--ServerApp.root_dir=${files}`, `--IdentityProvider.token=${TOKEN}`,
      // It would ask the makers for news.
      '--LabApp.news_url=', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate',
    ],
    ready: '/login',
  });
}

function notebook() {
  const kernelspec = { name: 'python3', display_name: 'Python 3', language: 'python' };
  return {
    nbformat: 4, nbformat_minor: 5, metadata: { kernelspec },
    cells: [
      { id: 'code', cell_type: 'code', source: 'print(2 + 2, "pumps")', metadata: {}, outputs: [], execution_count: null },
      { id: 'text', cell_type: 'markdown', source: `${'a long text\n\n'.repeat(60)}# Pumps`, metadata: {} },
    ],
  };
}
