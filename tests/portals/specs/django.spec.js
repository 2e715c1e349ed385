// Django's administration site as `startproject` leaves it: it knows no proxy, refuses every host but this machine's, and
// compares the Origin of each form with its own address.

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

import { afterLunch, behind, comeBack, endSession, expect, firstLogin, laterLogin, listen, notice, saved, signInAgain, signInBeside } from '../support/behind.js';
import { SUITE, Server, python } from '../support/server.js';

const LIST = '/admin/sims/sim/';
const DATASHEET = { name: 'datasheet “ü”.bin', mimeType: 'application/octet-stream', buffer: Buffer.from([0, 255, 13, 10, 195, 40]) };

const test = behind(startDjango, { host: 'upstream', origin: 'upstream', logout_paths: ['/admin/logout/'], session_notice: true });

test('the administration site works from its own login to its own log-out', async ({ visitor }) => {
  const { page } = visitor;
  const faults = listen(visitor);

  await test.step('after both logins the page asked for is there, with its styles', async () => {
    await logIn(visitor);
    await expect(page.getByText('0 sims', { exact: true })).toBeVisible();
    await expect(page.locator('#header')).toHaveCSS('background-color', 'rgb(65, 118, 144)');
  });

  await test.step('a form with a file is taken, and the file comes back as it was', async () => {
    await page.getByRole('link', { name: 'Add sim' }).first().click();
    await page.getByLabel('Label:').fill('Pump 11');
    await page.getByLabel('Datasheet:').setInputFiles(DATASHEET);
    await visitor.press('Save and continue editing');
    await expect(page.getByText('was added successfully')).toBeVisible();
    const { bytes } = await saved(page, () => page.getByRole('link', { name: /datasheets/ }).click());
    expect(bytes).toEqual(DATASHEET.buffer);
  });
  expect(faults).toEqual([]);

  await test.step('its own log-out ends the session of the gateway as well', async () => {
    await visitor.press('Log out');
    await expect(page.getByText('Thanks for spending some quality time')).toBeVisible();
    await visitor.leave(() => page.getByRole('link', { name: 'Log in again' }).click());
    await visitor.expectHeading('Sign in');
    expect((await visitor.fetch(LIST)).status).toBe(401);
  });
});

test('a form that is sent when the session has run out arrives after the login', async ({ visitor, gateway }) => {
  const { page } = visitor;
  await logIn(visitor);
  await page.getByRole('link', { name: 'Add sim' }).first().click();
  await page.getByLabel('Label:').fill('Tracker 29');
  await page.getByLabel('Datasheet:').setInputFiles(DATASHEET);
  await afterLunch(visitor);
  await visitor.press('Save');
  await visitor.expectHeading('Sign in');
  await signInAgain(visitor);
  await visitor.expectHeading('Your form was kept');
  await visitor.press('Send');
  await expect(page.getByText('was added successfully')).toContainText('Tracker 29');
  await page.getByRole('link', { name: 'Tracker 29' }).first().click();
  const { bytes } = await saved(page, () => page.getByRole('link', { name: /datasheets/ }).click());
  expect(bytes).toEqual(DATASHEET.buffer);
  await gateway.passTime(0);
});

test('a half-written form is still there after a login beside it, and is taken', async ({ visitor, gateway }) => {
  const { page } = visitor;
  await logIn(visitor);
  await page.getByRole('link', { name: 'Add sim' }).first().click();
  await page.getByLabel('Label:').fill('Meter 30');
  await page.getByLabel('Datasheet:').setInputFiles(DATASHEET);
  await afterLunch(visitor);
  await comeBack(visitor);
  await expect(notice(visitor).getByText("You're signed out")).toBeVisible();
  await signInBeside(visitor);
  await expect(page.getByLabel('Label:')).toHaveValue('Meter 30');
  await visitor.press('Save');
  await expect(page.getByText('was added successfully')).toContainText('Meter 30');
  await page.getByRole('link', { name: 'Meter 30' }).first().click();
  const { bytes } = await saved(page, () => page.getByRole('link', { name: /datasheets/ }).click());
  expect(bytes).toEqual(DATASHEET.buffer);
  await gateway.passTime(0);
});

test('a deep link keeps its query and fragment through the login', async ({ visitor }) => {
  await logIn(visitor);
  await endSession(visitor);
  await laterLogin(visitor, `${LIST}?q=&o=-1#changelist-form`);
  await expect(visitor.page.locator('#changelist-form')).toBeVisible();
});

/** Both logins: the gateway's for the first time, then Django's. */
async function logIn(visitor) {
  const { page } = visitor;
  await firstLogin(visitor, LIST, `/admin/login/?next=${LIST}`);
  await page.getByLabel('Username:').fill('admin');
  await page.getByLabel('Password:').fill('admin');
  await visitor.press('Log in');
  await expect(page).toHaveURL(visitor.gateway.url + LIST);
}

async function startDjango(folder) {
  fs.mkdirSync(folder, { recursive: true });
  execFileSync(python('python'), [path.join(SUITE, 'django/make.py')], { cwd: folder });
  return Server.start({
    folder,
    command: (_, port) => [python('python'), 'manage.py', 'runserver', '--noreload', `127.0.0.1:${port}`],
    env: { DJANGO_SETTINGS_MODULE: 'portal_settings', PYTHONUNBUFFERED: '1' },
  });
}
