// A portal that a test starts: a program, on a port of its own of the loopback interface, with a folder of its own.

import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { freePort } from '../../browser/support/ports.js';
import { Program } from '../../browser/support/process.js';

/** The folder of this suite. */
export const SUITE = fileURLToPath(new URL('..', import.meta.url));

const VENV = path.join(SUITE, '.venv/bin');

// Debian keeps servers where only root looks for them.
const PATH = `${process.env.PATH}:/usr/sbin`;

/** A command of one of the packages in requirements.txt. */
export function python(command) {
  const file = path.join(VENV, command);
  if (!fs.existsSync(file)) {
    throw new Error(`${file} is missing: run \`tests/run --portals --install-only\``);
  }
  return file;
}

export class Server {
  #program;

  /**
   * Starts what `command(folder, port)` says: `[file, ...arguments]`. `ready` is a path that is answered, with whatever
   * status, once the portal is there. `env` is added to the environment.
   */
  static async start({ folder, command, ready = '/', env = {}, scheme = 'http' }) {
    fs.mkdirSync(folder, { recursive: true });
    const server = new Server();
    server.port = await freePort();
    server.url = `${scheme}://127.0.0.1:${server.port}`;
    const [file, ...args] = command(folder, server.port);
    server.#program = new Program(file, args, {
      log: path.join(folder, 'portal.log'),
      env: { ...process.env, PATH, HOME: folder, ...env },
      cwd: folder,
    });
    server.folder = folder;
    await server.#program.ready(() => answers(server.url + ready), 90);
    return server;
  }

  async stop() {
    await this.#program.end('SIGTERM');
  }
}

function answers(url) {
  return new Promise((resolve) => {
    (url.startsWith('https:') ? https : http)
      .get(url, { agent: false, rejectUnauthorized: false }, (answer) => {
        answer.resume();
        resolve(true);
      })
      .once('error', () => resolve(false));
  });
}
