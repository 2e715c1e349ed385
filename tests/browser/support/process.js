// A program that a test starts, waits for and ends by its own process id. Its output goes to a file.

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

export class Program {
  #child;
  #ended;

  /** Starts it. What it prints is appended to `log`. */
  constructor(command, args, { log, env = process.env, cwd }) {
    this.log = log;
    const out = fs.openSync(log, 'a');
    this.#child = spawn(command, args, { cwd, env, stdio: ['ignore', out, out] });
    fs.closeSync(out);
    this.#ended = new Promise((resolve) => {
      this.#child.once('error', (error) => resolve(`could not start: ${error.message}`));
      this.#child.once('exit', (code, signal) => resolve(signal ?? code));
    });
    this.#ended.then((how) => {
      this.how = how;
    });
  }

  /** Waits until `isReady` says so. Fails when the program ends or takes longer than `seconds`. */
  async ready(isReady, seconds = 30) {
    const deadline = Date.now() + seconds * 1000;
    while (!(await isReady())) {
      if (this.how !== undefined || Date.now() > deadline) {
        const why = this.how === undefined ? `not ready after ${seconds} s` : `ended with ${this.how}`;
        await this.end('SIGKILL');
        throw new Error(`${this.#child.spawnfile}: ${why}\n${this.lastLines()}`);
      }
      await pause(20);
    }
  }

  /** Sends `signal` and waits for the end; answers with the exit code or the signal it died of. */
  async end(signal = 'SIGTERM', seconds = 20) {
    if (this.how === undefined) {
      this.#child.kill(signal);
    }
    const late = Symbol('late');
    const how = await Promise.race([this.#ended, pause(seconds * 1000, late, { ref: false })]);
    if (how !== late) {
      return how;
    }
    this.#child.kill('SIGKILL');
    await this.#ended;
    return `still there ${seconds} s after ${signal}`;
  }

  lastLines(count = 30) {
    return fs.readFileSync(this.log, 'utf8').split('\n').slice(-count).join('\n');
  }
}
