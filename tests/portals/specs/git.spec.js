// git's own server behind the gateway, and git as everybody has it: cloning, and pushing what is too large for one piece.

import { execFileSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

import { expect } from '../support/behind.js';
import { machines } from '../support/machines.js';
import { Server } from '../support/server.js';

const BACKEND = path.join(execFileSync('git', ['--exec-path'], { encoding: 'utf8' }).trim(), 'git-http-backend');
// Beyond http.postBuffer, so that git sends it in chunks of unknown number; it does not compress.
const LARGE = crypto.randomBytes(6 << 20);
const OWN = { name: 'ada', password: 'of-the-portal' };

const test = machines(startGit);

for (const version of ['HTTP/1.1', 'HTTP/2']) {
  test(`a repository is cloned, changed and pushed to, with the token as password, over ${version}`, async ({ run, token, gateway, portal, home, certificate }) => {
    const git = asUser(run, certificate, home, version);
    store(home, gateway, await token(`git-${version.at(-1)}`, '--service', 'ci', '--path', '/git/*'));
    await succeeds(git(['clone', `${gateway.url}/git/open.git`, 'work']));
    fs.writeFileSync(path.join(home, 'work/large.bin'), LARGE);
    fs.writeFileSync(path.join(home, 'work/small.txt'), version);
    await succeeds(git(['-C', 'work', 'add', '.']));
    await succeeds(git(['-C', 'work', 'commit', '-q', '-m', version]));
    const pushed = await succeeds(git(['-C', 'work', 'push', 'origin', 'HEAD:main'], { GIT_CURL_VERBOSE: '1' }));
    expect(pushed.err).toContain(version === 'HTTP/2' ? 'using HTTP/2' : 'Transfer-Encoding: chunked');
    await succeeds(git(['clone', '-b', 'main', `${gateway.url}/git/open.git`, 'again']));
    expect(fs.readFileSync(path.join(home, 'again/large.bin')).equals(LARGE)).toBe(true);
    // The server's hook hears who it was.
    expect(fs.readFileSync(path.join(portal.folder, 'pushed'), 'utf8').trim().split('\n').at(-1)).toBe('service:ci');
  });
}

test('a token that is for reading clones, and does not push', async ({ run, token, gateway, home, certificate }) => {
  const git = asUser(run, certificate, home);
  const paths = ['/git/open.git/info/refs', '/git/open.git/git-upload-pack'];
  const reader = await token('reader', '--service', 'reader', ...paths.flatMap((each) => ['--path', each]));
  store(home, gateway, reader);
  await succeeds(git(['clone', `${gateway.url}/git/open.git`, 'work']));
  await succeeds(git(['-C', 'work', 'commit', '-q', '--allow-empty', '-m', 'not for everybody']));
  const pushed = await git(['-C', 'work', 'push', 'origin', 'HEAD:refs/heads/reader']);
  expect(pushed.status).not.toBe(0);
  expect(pushed.err).toMatch(/Authentication failed|error: 401/);
  // git forgets a password that was refused.
  store(home, gateway, reader);
  const heads = await succeeds(git(['ls-remote', `${gateway.url}/git/open.git`]));
  expect(heads.out).not.toContain('refs/heads/reader');
});

test('a server that asks for a password of its own gets it, with the token beside it', async ({ run, token, gateway, home, certificate }) => {
  const git = asUser(run, certificate, home);
  store(home, gateway, OWN.password, OWN.name);
  await succeeds(git(['config', '--global', `http.${gateway.url}/.extraHeader`, `X-Portcullis-Token: ${await token('beside', '--service', 'ci')}`]));
  await succeeds(git(['clone', `${gateway.url}/git/closed.git`, 'work']));
  fs.writeFileSync(path.join(home, 'work/large.bin'), LARGE);
  await succeeds(git(['-C', 'work', 'add', '.']));
  await succeeds(git(['-C', 'work', 'commit', '-q', '-m', 'large']));
  await succeeds(git(['-C', 'work', 'push', 'origin', 'HEAD:main']));
});

test('without a token, or with one that is over, git says so and ends', async ({ run, token, gateway, home, certificate }) => {
  const git = asUser(run, certificate, home);
  const none = await git(['clone', `${gateway.url}/git/open.git`, 'work']);
  expect([none.status, none.err]).toEqual([128, expect.stringContaining('could not read Username')]);
  store(home, gateway, await token('over', '--service', 'ci'));
  await gateway.portcullis(['token', 'revoke', 'over']);
  await expect.poll(async () => (await git(['ls-remote', `${gateway.url}/git/open.git`])).err).toContain('Authentication failed');
});

/** git of somebody who has never used it on this machine. */
function asUser(run, { certificate }, home, version = 'HTTP/2') {
  const settings = { 'user.name': 'Ada', 'user.email': 'ada@example.com', 'init.defaultBranch': 'main', 'http.sslCAInfo': certificate, 'http.version': version, 'credential.helper': 'store' };
  const file = Object.entries(settings).map(([key, value]) => `[${key.split('.')[0]}]\n${key.split('.')[1]} = ${value}\n`);
  fs.writeFileSync(path.join(home, '.gitconfig'), file.join(''));
  return (args, env = {}) => run('git', args, { env: { GIT_TERMINAL_PROMPT: '0', ...env } });
}

function store(home, gateway, password, name = 'any') {
  fs.writeFileSync(path.join(home, '.git-credentials'), `${gateway.url.replace('//', `//${name}:${password}@`)}\n`);
}

async function succeeds(running) {
  const done = await running;
  expect(done.status, done.err).toBe(0);
  return done;
}

async function startGit(folder) {
  fs.mkdirSync(folder, { recursive: true });
  for (const name of ['open', 'closed']) {
    const repository = path.join(folder, `${name}.git`);
    execFileSync('git', ['init', '-q', '--bare', '-b', 'main', repository]);
    execFileSync('git', ['-C', repository, 'config', 'http.receivepack', 'true']);
    fs.writeFileSync(path.join(repository, 'hooks/post-receive'), `#!/bin/sh\necho "$HTTP_REMOTE_USER" >> '${folder}/pushed'\n`, { mode: 0o755 });
  }
  fs.writeFileSync(path.join(folder, 'passwords'), `${OWN.name}:${OWN.password}\n`);
  return Server.start({
    folder,
    command: (_, port) => {
      const file = path.join(folder, 'lighttpd.conf');
      fs.writeFileSync(file, configuration(folder, port));
      return ['lighttpd', '-D', '-f', file];
    },
  });
}

function configuration(folder, port) {
  return `server.modules = ("mod_auth", "mod_authn_file", "mod_alias", "mod_setenv", "mod_cgi")
server.document-root = "${folder}"
server.bind = "127.0.0.1"
server.port = ${port}
alias.url = ("/git" => "${BACKEND}")
auth.backend = "plain"
auth.backend.plain.userfile = "${folder}/passwords"
$HTTP["url"] =~ "^/git/closed.git" {
auth.require = ("" => ("method" => "basic", "realm" => "closed", "require" => "valid-user"))
}
$HTTP["url"] =~ "^/git" {
cgi.assign = ("" => "")
setenv.set-environment = ("GIT_PROJECT_ROOT" => "${folder}", "GIT_HTTP_EXPORT_ALL" => "1", "GIT_CONFIG_NOSYSTEM" => "1")
}
`;
}
