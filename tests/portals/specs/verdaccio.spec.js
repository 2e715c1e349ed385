// A registry of packages (Verdaccio) behind the gateway, and npm as everybody has it: the token is all that npm signs in with.

import fs from 'node:fs';
import path from 'node:path';

import { expect } from '../support/behind.js';
import { machines } from '../support/machines.js';
import { SUITE, Server } from '../support/server.js';

const PROGRAM = path.join(SUITE, 'registry/node_modules/verdaccio/bin/verdaccio');

const test = machines(startVerdaccio, { access: { rules: [{ path: '/-/ping', level: 'bypass' }] } });

test('a package is published, found, installed and reinstalled from its lock', async ({ run, token, gateway, home, certificate }) => {
  const npm = asUser(run, certificate, home, gateway, await token('publisher', '--service', 'ci'));
  const files = { 'index.js': `module.exports = '${'x'.repeat(3 << 20)}';\n` };
  await succeeds(npm(['publish'], { cwd: makePackage(home, 'pumps', '1.0.0', files) }));
  await succeeds(npm(['publish'], { cwd: makePackage(home, 'pumps', '1.1.0', files) }));
  await succeeds(npm(['publish', '--access', 'public'], { cwd: makePackage(home, '@iot/valves', '2.0.0', { 'index.js': '' }, { pumps: '^1.0.0' }) }));
  const seen = await succeeds(npm(['view', 'pumps', 'versions', '--json']));
  expect(JSON.parse(seen.out)).toEqual(['1.0.0', '1.1.0']);

  const project = path.join(home, 'project');
  fs.mkdirSync(project);
  fs.writeFileSync(path.join(project, 'package.json'), '{ "name": "project", "private": true }');
  await succeeds(npm(['install', '@iot/valves'], { cwd: project }));
  const installed = path.join(project, 'node_modules/pumps/index.js');
  expect(fs.readFileSync(installed, 'utf8')).toBe(files['index.js']);
  await succeeds(npm(['ci', '--cache', path.join(home, 'empty')], { cwd: project }));
  expect(fs.readFileSync(installed, 'utf8')).toBe(files['index.js']);
});

test('a token for reading installs and does not publish; npm says what is wrong with others', async ({ run, token, gateway, home, certificate }) => {
  await succeeds(asUser(run, certificate, home, gateway, await token('writer', '--service', 'ci'))(['publish'], { cwd: makePackage(home, 'meters', '1.0.0', {}) }));
  const reader = await token('reader', '--service', 'build', '--method', 'GET', '--method', 'HEAD');
  const npm = asUser(run, certificate, home, gateway, reader);
  await succeeds(npm(['pack', 'meters']));
  const published = await npm(['publish'], { cwd: makePackage(home, 'meters', '1.1.0', {}) });
  expect([published.status, published.err]).toEqual([1, expect.stringContaining('E401')]);
  await gateway.portcullis(['token', 'revoke', 'reader']);
  await expect.poll(async () => (await npm(['view', 'meters', 'version'])).err).toContain('E401');
  const stranger = asUser(run, certificate, home, gateway, '');
  const viewed = await stranger(['view', 'meters', 'version']);
  expect([viewed.status, viewed.err]).toEqual([1, expect.stringMatching(/E401|ENEEDAUTH/)]);
  await succeeds(stranger(['ping']));
});

/** npm of somebody whose `.npmrc` says what docs/tokens.md says. */
function asUser(run, { certificate }, home, gateway, token) {
  const registry = `${gateway.url}/`;
  const lines = [`registry=${registry}`, `cafile=${certificate}`, 'fetch-retries=0', 'audit=false', 'fund=false', 'update-notifier=false'];
  if (token !== '') {
    lines.push(`${registry.replace('https:', '')}:_authToken=\${TOKEN}`);
  }
  fs.writeFileSync(path.join(home, '.npmrc'), `${lines.join('\n')}\n`);
  return (args, options = {}) => run('npm', args, { env: { TOKEN: token }, ...options });
}

function makePackage(home, name, version, files, dependencies = {}) {
  const folder = fs.mkdtempSync(path.join(home, 'package-'));
  fs.writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ name, version, dependencies }));
  Object.entries(files).forEach(([file, text]) => fs.writeFileSync(path.join(folder, file), text));
  return folder;
}

async function succeeds(running) {
  const done = await running;
  expect(done.status, done.out + done.err).toBe(0);
  return done;
}

async function startVerdaccio(folder) {
  if (!fs.existsSync(PROGRAM)) {
    throw new Error(`${PROGRAM} is missing: run \`tests/run --portals --install-only\``);
  }
  fs.mkdirSync(folder, { recursive: true });
  const file = path.join(folder, 'config.yaml');
  fs.writeFileSync(file, `storage: ${folder}/packages
auth: { htpasswd: { file: ${folder}/passwords, max_users: -1 } }
packages: { '**': { access: $all, publish: $all, unpublish: $all } }
web: { enable: false }
max_body_size: 50mb
log: { type: stdout, format: pretty, level: warn }
`);
  return Server.start({
    folder,
    command: (_, port) => ['node', PROGRAM, '--config', file, '--listen', `127.0.0.1:${port}`],
    ready: '/-/ping',
  });
}
