// Datasette: tables, queries and exports; a link that signs its administrator in.

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

import { behind, endSession, expect, firstLogin, laterLogin, listen, saved } from '../support/behind.js';
import { Server, python } from '../support/server.js';

const ROWS = 5000;
const QUERY = '/readings?sql=select+count%28*%29+as+n%2C+%27a%2Bb+%26+%25%27+as+text+from+readings';

const test = behind(startDatasette, { logout_paths: ['/-/logout'] });

test('tables, exports and the interface for programs, from its sign-in link to its log-out', async ({ visitor, portal }) => {
  const { page } = visitor;
  const faults = listen(visitor);

  await test.step('the link that it printed at its start signs its administrator in', async () => {
    const [link] = fs.readFileSync(path.join(portal.folder, 'portal.log'), 'utf8').match(/\/-\/auth-token\?token=\w+/);
    await firstLogin(visitor, link, '/');
    await expect(page.getByRole('link', { name: 'readings', exact: true }).first()).toBeVisible();
  });

  await test.step('an export comes whole', async () => {
    await visitor.open('/readings/readings');
    await page.getByLabel('stream all rows').check();
    await page.getByLabel('download file').check();
    const { bytes } = await saved(page, () => page.getByRole('button', { name: 'Export CSV' }).click());
    expect(bytes.toString().trim().split('\n')).toHaveLength(ROWS + 1);
  });

  await test.step('what it says of its own address is the gateway’s', async () => {
    const first = JSON.parse((await visitor.fetch('/readings/readings.json?_size=10')).text);
    expect(first.next_url.startsWith(`${visitor.gateway.url}/readings/readings.json`), first.next_url).toBe(true);
    const second = await page.evaluate(async (url) => (await fetch(url)).json(), first.next_url);
    expect(second.rows).toHaveLength(10);
  });

  await test.step('its own log-out ends the session of the gateway as well', async () => {
    await visitor.open('/-/logout');
    expect((await visitor.fetch('/readings.json')).status, 'a question is no log-out').toBe(200);
    await visitor.press('Log out');
    await visitor.expectHeading('Sign in');
  });
  expect(faults).toEqual([]);
});

test('a query in a link survives the login, with its fragment', async ({ visitor }) => {
  await firstLogin(visitor, `${QUERY}#g.mark=bar`);
  await expect(visitor.page.locator('td.col-text')).toHaveText('a+b & %');
  await endSession(visitor);
  // Datasette lets browsers show a page for five seconds without asking.
  await laterLogin(visitor, `${QUERY}&_hide_sql=1#g.mark=bar`);
  await expect(visitor.page.locator('td.col-n')).toHaveText(String(ROWS));
});

async function startDatasette(folder) {
  const database = path.join(folder, 'readings.db');
  fs.mkdirSync(folder, { recursive: true });
  const fill = `
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as database:
    database.execute("create table readings (id integer primary key, pump text)")
    database.executemany("insert into readings values (?, ?)", ((at, f"pump {at}") for at in range(${ROWS})))
`;
  execFileSync(python('python'), ['-c', fill, database]);
  return Server.start({
    folder,
    command: (_, port) => [python('datasette'), 'serve', '-h', '127.0.0.1', '-p', String(port), '--root', database],
  });
}
