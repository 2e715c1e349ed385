// Node-RED as it comes from its makers, on the loopback interface, with a folder of its own.

import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { freePort } from './ports.js';
import { Program } from './process.js';

const INSTALLED = fileURLToPath(new URL('../node-red/node_modules/node-red/red.js', import.meta.url));

export class NodeRed {
  #program;

  static async start(folder) {
    if (!fs.existsSync(INSTALLED)) {
      throw new Error('Node-RED is not installed: run `npm ci` in tests/browser/node-red');
    }
    fs.mkdirSync(folder, { recursive: true });
    const nodeRed = new NodeRed();
    nodeRed.port = await freePort();
    nodeRed.url = `http://127.0.0.1:${nodeRed.port}`;
    nodeRed.#program = new Program(
      process.execPath,
      [INSTALLED, '--userDir', folder, '--port', String(nodeRed.port), '-D', 'uiHost=127.0.0.1'],
      { log: path.join(folder, 'node-red.log') },
    );
    await nodeRed.#program.ready(() => nodeRed.#answers(), 90);
    return nodeRed;
  }

  async stop() {
    await this.#program.end('SIGTERM');
  }

  #answers() {
    return new Promise((resolve) => {
      http
        .get(this.url, { agent: false }, (answer) => {
          answer.resume();
          resolve(answer.statusCode === 200);
        })
        .once('error', () => resolve(false));
    });
  }
}
