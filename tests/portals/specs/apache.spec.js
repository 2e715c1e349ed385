// Apache with two hosts on one port, each with a certificate of its own: it picks the host by the name in the TLS handshake,
// and redirects to it. The portal is the second, with files that scripts write, move and delete (WebDAV), part of them behind
// a password that Apache asks for.

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

import { behind, endSession, expect, firstLogin, laterLogin, listen } from '../support/behind.js';
import { Server } from '../support/server.js';

const MODULES = '/usr/lib/apache2/modules';
const HOSTS = ['first.internal', 'portal.internal'];
const BASIC = { username: 'ada', password: 'of the portal' };

const test = behind(startApache, ({ folder }) => ({
  host: 'portal.internal',
  tls_name: 'portal.internal',
  ca: path.join(folder, 'ca.pem'),
  origin: 'upstream',
}));

test('the host that was meant answers, and its redirects stay at the gateway', async ({ visitor }) => {
  const { page } = visitor;
  const faults = listen(visitor);
  await firstLogin(visitor, '/manual', '/manual/');
  await visitor.expectHeading('This is portal.internal');
  await visitor.open('/files');
  await expect(page).toHaveURL(`${visitor.gateway.url}/files/`);

  await test.step('a file goes up, is moved, comes down as it was, and is deleted', async () => {
    const bytes = Array.from({ length: 100_000 }, (_, at) => (at * at) % 251);
    const { statuses, back } = await page.evaluate(store, bytes);
    expect(statuses).toEqual([201, 201, 200, 204, 207]);
    expect(back).toEqual(bytes);
  });
  expect(faults).toEqual([]);
});

test('a password that Apache asks for does not get in the way of the login', async ({ newVisitor, gateway }) => {
  const visitor = await newVisitor({ gateway, httpCredentials: BASIC });
  await firstLogin(visitor, '/private/');
  await visitor.expectHeading('Hello ada');
  await endSession(visitor);
  await laterLogin(visitor, '/private/?a=b&c=%2F#end');
  await expect(visitor.page.locator('#end')).toBeInViewport();
});

/** In the page: writes a file, moves it, reads it, deletes it, lists its folder. */
async function store(bytes) {
  const named = (name) => new URL(name, location.href).href;
  const [one, two] = [named('readings 1.bin'), named('readings 2.bin')];
  const statuses = [];
  const ask = async (url, init) => {
    const answer = await fetch(url, init);
    statuses.push(answer.status);
    return answer;
  };
  await ask(one, { method: 'PUT', body: new Uint8Array(bytes) });
  await ask(one, { method: 'MOVE', headers: { destination: two } });
  const back = [...new Uint8Array(await (await ask(two)).arrayBuffer())];
  await ask(two, { method: 'DELETE' });
  await ask(named('.'), { method: 'PROPFIND', headers: { depth: '1' } });
  return { statuses, back };
}

async function startApache(folder) {
  // Apache's processes are another user's when root starts them.
  [path.dirname(folder), folder].forEach((each) => {
    fs.mkdirSync(each, { recursive: true });
    fs.chmodSync(each, 0o711);
  });
  HOSTS.forEach((host) => makeHost(path.join(folder, host), host));
  const certificates = HOSTS.map((host) => fs.readFileSync(path.join(folder, host, 'certificate.pem'), 'utf8'));
  fs.writeFileSync(path.join(folder, 'ca.pem'), certificates.join(''));
  fs.writeFileSync(path.join(folder, 'passwords'), `${BASIC.username}:${crypt(BASIC.password)}\n`);
  return Server.start({
    folder,
    scheme: 'https',
    command: (_, port) => {
      const file = path.join(folder, 'apache.conf');
      fs.writeFileSync(file, configuration(folder, port));
      return ['apache2', '-X', '-d', folder, '-f', file];
    },
  });
}

function makeHost(folder, host) {
  for (const part of ['manual', 'files', 'private', 'locks']) {
    fs.mkdirSync(path.join(folder, part), { recursive: true });
    fs.chmodSync(path.join(folder, part), 0o777);
  }
  const head = '<!doctype html><html lang="en"><link rel="icon" href="data:,">';
  fs.writeFileSync(path.join(folder, 'manual/index.html'), `${head}<h1>This is ${host}</h1>`);
  fs.writeFileSync(path.join(folder, 'private/index.html'), `${head}<h1>Hello ada</h1><p style="height: 3000px"><p id="end">The end`);
  execFileSync(
    'openssl',
    ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', `/CN=${host}`]
      .concat(['-addext', `subjectAltName=DNS:${host}`])
      .concat(['-keyout', path.join(folder, 'key.pem'), '-out', path.join(folder, 'certificate.pem')]),
    { stdio: 'ignore' },
  );
}

function crypt(password) {
  return execFileSync('openssl', ['passwd', '-apr1', password], { encoding: 'utf8' }).trim();
}

function configuration(folder, port) {
  const modules = ['mpm_prefork', 'authn_core', 'authn_file', 'authz_core', 'authz_user', 'auth_basic', 'ssl', 'dir', 'autoindex']
    .concat(['mime', 'dav', 'dav_fs'])
    .map((name) => `LoadModule ${name}_module ${MODULES}/mod_${name}.so`);
  const hosts = HOSTS.map((host) => `<VirtualHost *:${port}>
ServerName ${host}
DocumentRoot ${folder}/${host}
SSLEngine on
SSLCertificateFile ${folder}/${host}/certificate.pem
SSLCertificateKeyFile ${folder}/${host}/key.pem
DavLockDB ${folder}/${host}/locks/db
<Directory ${folder}/${host}/files>
Options Indexes
Dav On
</Directory>
<Directory ${folder}/${host}/private>
AuthType Basic
AuthName Private
AuthUserFile ${folder}/passwords
Require valid-user
</Directory>
</VirtualHost>`);
  const user = process.getuid() === 0 ? ['User www-data', 'Group www-data'] : [];
  return [
    ...modules, 'ServerName apache', `Listen 127.0.0.1:${port}`, `PidFile ${folder}/pid`, `ErrorLog ${folder}/error.log`,
    'SSLSessionCache none', `TypesConfig /etc/mime.types`, ...user, ...hosts,
  ].join('\n');
}
