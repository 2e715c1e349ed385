// What a test of programs without a browser gets: a portal of its choice behind a gateway, and tokens for it. The programs are
// what anybody has: they call the gateway `localhost`, since they ask the machine for addresses, and believe its certificate
// because they are told to.

import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

import { behind } from './behind.js';

/** As `behind`, for programs; `settings` are all tables of the configuration. */
export function machines(start, settings = {}) {
  return behind(start).extend({
    host: ['localhost', { scope: 'worker' }],
    settings: [async ({}, use) => use(settings), { scope: 'worker' }],
    /** A folder of the test's own, where its programs are at home. */
    home: async ({ folder }, use, testInfo) => {
      const home = path.join(folder, `home-${testInfo.testId}`);
      fs.mkdirSync(home);
      await use(home);
    },
    /** Runs a program to its end, whatever that is: `{ status, out, err }`. */
    run: async ({ home }, use) => use((file, args, options = {}) => runAt(home, file, args, options)),
    /** Makes tokens, each with a name and these options of `token create`. None of them may stand in the gateway's log. */
    token: async ({ gateway }, use) => {
      const made = [];
      await use(async (name, ...options) => {
        const { token } = JSON.parse(await gateway.portcullis(['token', 'create', name, ...options, '--json']));
        made.push(token);
        return token;
      });
      const log = gateway.newLog();
      const leaked = made.filter((token) => log.includes(token));
      if (leaked.length > 0) {
        throw new Error(`${leaked.length} tokens stand in the log`);
      }
    },
  });
}

function runAt(home, file, args, { env = {}, cwd = home, input = '' }) {
  const around = { PATH: `${process.env.PATH}:/usr/sbin`, HOME: home, LANG: 'C.UTF-8', ...env };
  return new Promise((resolve) => {
    const child = execFile(file, args, { cwd, env: around, timeout: 60_000, maxBuffer: 64 << 20 }, (error, out, err) => {
      resolve({ status: error ? (error.code ?? error.signal) : 0, out, err });
    });
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
}
