// An application on Dash, which says nothing at all when its requests are refused.

import path from 'node:path';

import { behind, comeBack, endSession, expect, firstLogin, listen, notice, signInBeside } from '../support/behind.js';
import { SUITE, Server, python } from '../support/server.js';

const test = behind(startDash, { session_notice: true });

test('inputs are answered', async ({ visitor }) => {
  const faults = listen(visitor);
  await firstLogin(visitor, '/');
  await visitor.page.getByLabel('Pump').fill('11');
  await expect(visitor.page.getByText('Pump 11: no notes')).toBeVisible();
  expect(faults).toEqual([]);
});

test('a page that is refused tells why, and after a login beside it goes on with all that was typed', async ({ visitor }) => {
  const { page } = visitor;
  await firstLogin(visitor, '/');
  await page.getByLabel('Pump').fill('11');
  await expect(page.getByText('Pump 11: no notes')).toBeVisible();
  await page.getByLabel('Notes').fill('bearing is loud');
  await endSession(visitor);

  // Nobody comes back: the page itself is told that it is not signed in.
  await page.getByLabel('Pump').fill('12');
  await expect(notice(visitor).getByText("You're signed out")).toBeVisible();
  await signInBeside(visitor);
  await expect(page.getByLabel('Notes')).toHaveValue('bearing is loud');
  await page.getByLabel('Pump').fill('13');
  await expect(page.getByText('Pump 13: bearing is loud')).toBeVisible();
  await comeBack(visitor);
  await expect(notice(visitor)).toBeHidden();
});

async function startDash(folder) {
  return Server.start({ folder, command: (_, port) => [python('python'), path.join(SUITE, 'dash_app.py'), String(port)] });
}
