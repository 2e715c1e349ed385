// The user's authenticator app: codes from a key, computed by oathtool and not by anything of ours.

import { execFileSync } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';

const STEP = 30;
// Closer than this to its end, a code may have run out when it arrives.
const MARGIN = 6;

export class Authenticator {
  /** The step of the code last given out. */
  lastStep = 0;

  #clock;

  /** `key` in base32, in groups or not; `clock.ahead` says by how many minutes the phone's clock is ahead of ours. */
  constructor(key, clock = { ahead: 0 }) {
    this.key = key.replace(/\s/g, '');
    this.#clock = clock;
  }

  /** The code that the app shows at `step`. */
  codeOf(step) {
    return oathtool(this.key, step);
  }

  /**
   * A code that has not been given out before and still holds for some seconds. Waits for the next step where there is
   * none. The gateway takes the code of the step before as well, so that two logins in a row need not wait.
   */
  async code() {
    for (;;) {
      const { step, into } = this.#moment();
      const usable = into < STEP - MARGIN ? [step - 1, step] : [step];
      const fresh = usable.find((candidate) => candidate > this.lastStep);
      if (fresh !== undefined) {
        this.lastStep = fresh;
        return this.codeOf(fresh);
      }
      await untilNextStep();
    }
  }

  /** The code on the screen right now, whether or not it was given out before, with time left to type it. */
  async currentCode() {
    if (this.#moment().into > STEP - MARGIN) {
      await untilNextStep();
    }
    const { step } = this.#moment();
    this.lastStep = Math.max(this.lastStep, step);
    return this.codeOf(step);
  }

  #moment() {
    const { step, into } = moment();
    return { step: step + (this.#clock.ahead * 60) / STEP, into };
  }

  /** Six digits that no clock within minutes would show. */
  wrongCode() {
    const { step } = this.#moment();
    const right = new Set();
    for (let near = step - 4; near <= step + 4; near += 1) {
      right.add(this.codeOf(near));
    }
    return ['000000', '123456', '314159', '271828', '161803', '141421', '173205', '223606', '244948', '264575'].find(
      (code) => !right.has(code),
    );
  }
}

/** Waits until the app shows another code. */
async function untilNextStep() {
  const { into } = moment();
  await pause((STEP - into) * 1000 + 50);
}

function moment() {
  const seconds = Date.now() / 1000;
  return { step: Math.floor(seconds / STEP), into: seconds % STEP };
}

function oathtool(key, step) {
  return execFileSync('oathtool', ['--totp', '-b', '-N', `@${step * STEP}`, key], { encoding: 'utf8' }).trim();
}
