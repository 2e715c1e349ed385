// Radicale: calendars, and an interface made of scripts that sign in to it with every request (HTTP Basic).

import fs from 'node:fs';
import path from 'node:path';

import { behind, endSession, expect, firstLogin, listen, saved, signInElsewhere } from '../support/behind.js';
import { Server, python } from '../support/server.js';

const INTERFACE = '/.web/';
// It asks once without cookies, to see whether a password is needed, and once for a part that is not switched on.
const EXPECTED = /PROPFIND .*\/: 401|\.sharing\/v1\/all\/list: 404|console: Failed to load resource/;
const CALENDAR = ['BEGIN:VCALENDAR', 'VERSION:2.0', 'PRODID:-//Pumps//EN', 'X-WR-CALNAME:Pumps', 'BEGIN:VEVENT', 'UID:pump-11']
  .concat(['DTSTAMP:20261130T080000Z', 'DTSTART:20261201T080000Z', 'SUMMARY:Prüfung “Pumpe”', 'END:VEVENT', 'END:VCALENDAR', ''])
  .join('\r\n');

const test = behind(startRadicale);

test('a calendar is uploaded, read, downloaded and deleted', async ({ visitor }) => {
  const { page } = visitor;
  const faults = listen(visitor);
  await firstLogin(visitor, '/', INTERFACE);
  await logIn(visitor);

  await test.step('upload', async () => {
    await page.getByTitle('Upload an addressbook or calendar').click();
    await page.locator('#uploadcollectionscene input[type=file]').setInputFiles({ name: 'pumps.ics', mimeType: 'text/calendar', buffer: Buffer.from(CALENDAR) });
    await page.locator('#uploadcollectionscene').getByRole('button', { name: 'Upload' }).click();
    await expect(page.getByText('Uploaded Successfully!').locator('visible=true')).toBeVisible();
    await page.getByRole('button', { name: 'Close' }).click();
    await expect(page.getByRole('heading', { name: 'Pumps' })).toBeVisible();
  });

  await test.step('and the file comes back', async () => {
    const calendar = page.locator('article:visible');
    await calendar.hover();
    const { bytes } = await saved(page, () => calendar.getByTitle('Download').click());
    expect(bytes.toString()).toContain('SUMMARY:Prüfung “Pumpe”');
  });

  await test.step('an event is moved, as calendar applications do', async () => {
    expect(await page.evaluate(move, CALENDAR)).toEqual([201, 201, 200]);
  });

  await test.step('it is deleted', async () => {
    const calendar = page.locator('article:visible');
    await calendar.hover();
    await calendar.getByTitle('Delete').click();
    await page.getByRole('textbox').last().fill('DELETE');
    await page.getByRole('button', { name: 'Delete' }).click();
    await expect(page.getByRole('heading', { name: 'Pumps' })).toBeHidden();
  });
  expect(faults.filter((fault) => !EXPECTED.test(fault))).toEqual([]);
});

test('an interface that is open when the session ends goes on after a login in another tab', async ({ visitor }) => {
  const { page } = visitor;
  const fault = page.locator('#collectionsscene').getByText('401');
  await firstLogin(visitor, `${INTERFACE}?a=b#collections`);
  await logIn(visitor);
  await endSession(visitor);
  await page.getByTitle('Refresh').click();
  await expect(fault).toBeVisible();

  await signInElsewhere(visitor);
  await page.getByTitle('Refresh').click();
  await expect(fault).toBeHidden();
  await expect(page.getByTitle('Create a new addressbook or calendar')).toBeVisible();
});

async function logIn({ page }) {
  await page.getByPlaceholder('Username').fill('ada');
  await page.getByPlaceholder('Password').fill('of-the-portal');
  await page.getByRole('button', { name: 'Next' }).click();
  await expect(page.getByTitle('Create a new addressbook or calendar')).toBeVisible();
}

/** In the page: writes an event into the calendar, moves it and reads it. */
async function move(event) {
  const headers = { authorization: `Basic ${btoa('ada:of-the-portal')}`, 'content-type': 'text/calendar' };
  const destination = new URL('/ada/pumps/two.ics', location.href).href;
  const statuses = [];
  for (const [name, method, more] of [['one', 'PUT', { body: event.replace('UID:pump-11', 'UID:one') }], ['one', 'MOVE', {}], ['two', 'GET', {}]]) {
    const init = { method, headers: { ...headers, destination }, ...more };
    statuses.push((await fetch(`/ada/pumps/${name}.ics`, init)).status);
  }
  return statuses;
}

async function startRadicale(folder) {
  fs.mkdirSync(folder, { recursive: true });
  const users = path.join(folder, 'users');
  fs.writeFileSync(users, 'ada:of-the-portal\n');
  return Server.start({
    folder,
    command: (_, port) => [
      python('radicale'), `--server-hosts=127.0.0.1:${port}`, `--storage-filesystem-folder=${path.join(folder, 'collections')}`,
      '--auth-type=htpasswd', `--auth-htpasswd-filename=${users}`, '--auth-htpasswd-encryption=plain', '--auth-delay=0',
    ],
    ready: INTERFACE,
  });
}
