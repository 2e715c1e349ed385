// Calendars kept in step by programs: Radicale believes the gateway who it is, and the programs know a user name and a
// password, which is the user's token.

import fs from 'node:fs';
import path from 'node:path';

import { expect } from '../support/behind.js';
import { machines } from '../support/machines.js';
import { SUITE, Server, python } from '../support/server.js';

// Radicale takes no user whose name has a colon in it, as those of services have.
const [ADA, BOB] = ['ada', 'bob'].map((name) => ({ email: `${name}@example.com`, name, password: 'gravel teapot of many words' }));

const test = machines(startRadicale, { identity: { headers: { user: 'X-Remote-User' } } });

test('vdirsyncer keeps a folder and a calendar in step, both ways', async ({ run, token, gateway, portal, home, certificate }) => {
  await gateway.addUser(ADA);
  const secret = await token('calendar', '--for', ADA.email);
  configure(home, gateway, certificate, secret);
  const local = path.join(home, 'local/pumps');
  fs.mkdirSync(local, { recursive: true });
  for (const uid of ['one', 'two']) {
    fs.writeFileSync(path.join(local, `${uid}.ics`), event(uid, 'Prüfung “Pumpe”'));
  }
  const sync = (...args) => run(python('vdirsyncer'), ['-c', path.join(home, 'vdirsyncer'), ...args], { input: 'y\n'.repeat(4) });
  await succeeds(sync('discover'));
  await succeeds(sync('sync'));
  const kept = path.join(portal.folder, 'collections/collection-root', ADA.email, 'pumps');
  expect(events(kept).sort()).toEqual(['one.ics', 'two.ics']);

  // Another program of the same user changes it; and what is deleted here goes there.
  const script = path.join(SUITE, 'caldav_client.py');
  const other = await succeeds(run(python('python'), [script, `${gateway.url}/`, secret, certificate.certificate]));
  expect(JSON.parse(other.out)).toEqual({ calendars: ['pumps'], events: ['one', 'three', 'two'] });
  fs.rmSync(path.join(local, 'one.ics'));
  await succeeds(sync('sync'));
  expect(events(kept)).toHaveLength(2);
  expect(events(local).map((name) => fs.readFileSync(path.join(local, name), 'utf8')).join('')).toContain('UID:three');
});

test('a token that is over ends the sync with an error that names it, and deletes nothing', async ({ run, token, gateway, home, certificate }) => {
  await gateway.addUser(BOB);
  configure(home, gateway, certificate, await token('over', '--for', BOB.email));
  const local = path.join(home, 'local/pumps');
  fs.mkdirSync(local, { recursive: true });
  fs.writeFileSync(path.join(local, 'one.ics'), event('one', 'here'));
  const sync = (...args) => run(python('vdirsyncer'), ['-c', path.join(home, 'vdirsyncer'), ...args], { input: 'y\n'.repeat(4) });
  await succeeds(sync('discover'));
  await succeeds(sync('sync'));
  await gateway.portcullis(['token', 'revoke', 'over']);
  await expect.poll(async () => (await sync('sync')).err).toContain('401');
  expect(events(local)).toEqual(['one.ics']);
});

function configure(home, gateway, { certificate }, secret) {
  fs.writeFileSync(path.join(home, 'vdirsyncer'), `[general]
status_path = "${home}/status"
[pair calendar]
a = "here"
b = "there"
collections = ["pumps"]
conflict_resolution = "b wins"
[storage here]
type = "filesystem"
path = "${home}/local"
fileext = ".ics"
[storage there]
type = "caldav"
url = "${gateway.url}/"
username = "whoever"
password = "${secret}"
verify = "${certificate}"
`);
}

function event(uid, summary) {
  return ['BEGIN:VCALENDAR', 'VERSION:2.0', 'PRODID:-//Pumps//EN', 'BEGIN:VEVENT', `UID:${uid}`, 'DTSTAMP:20261130T080000Z']
    .concat(['DTSTART:20261201T080000Z', `SUMMARY:${summary}`, 'END:VEVENT', 'END:VCALENDAR', ''])
    .join('\r\n');
}

function events(folder) {
  return fs.readdirSync(folder).filter((name) => name.endsWith('.ics'));
}

async function succeeds(running) {
  const done = await running;
  expect(done.status, done.out + done.err).toBe(0);
  return done;
}

async function startRadicale(folder) {
  fs.mkdirSync(folder, { recursive: true });
  return Server.start({
    folder,
    command: (_, port) => [
      python('radicale'), `--server-hosts=127.0.0.1:${port}`, `--storage-filesystem-folder=${path.join(folder, 'collections')}`,
      '--auth-type=http_x_remote_user',
    ],
    ready: '/.web/',
  });
}
