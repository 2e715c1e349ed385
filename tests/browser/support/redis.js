// A redis-server of our own that keeps nothing on disk.

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

import { freePort } from './ports.js';
import { Program } from './process.js';

export class Redis {
  #program;

  static async start(folder) {
    fs.mkdirSync(folder, { recursive: true });
    const redis = new Redis();
    redis.port = await freePort();
    redis.url = `redis://127.0.0.1:${redis.port}/0`;
    redis.#program = new Program(
      'redis-server',
      ['--port', String(redis.port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder],
      { log: path.join(folder, 'redis.log') },
    );
    await redis.#program.ready(() => redis.#answers());
    return redis;
  }

  /** Names of the keys that are there. */
  keys() {
    return this.#cli('keys', '*').split('\n').filter(Boolean);
  }

  async stop() {
    await this.#program.end('SIGTERM');
  }

  #answers() {
    try {
      return this.#cli('ping') === 'PONG';
    } catch {
      return false;
    }
  }

  #cli(...command) {
    const options = { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] };
    return execFileSync('redis-cli', ['-p', String(this.port), ...command], options).trim();
  }
}
