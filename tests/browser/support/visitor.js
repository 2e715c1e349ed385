// A user at a browser. Finds everything by role and label, as somebody would who has never seen the pages before, and
// does what the page at hand asks for.

import crypto from 'node:crypto';

import { expect } from '@playwright/test';

import { Authenticator } from './authenticator.js';

let count = 0;

/** Somebody nobody has met before, with a password that contains none of their names. */
export function stranger() {
  count += 1;
  const number = `${process.pid}-${count}`;
  const password = `gravel teapot ${crypto.randomBytes(9).toString('base64url')}`;
  return { email: `visitor-${number}@example.com`, name: `Visitor ${number}`, password };
}

export class Visitor {
  /** The headings of the pages of ours that were passed, in order. */
  passed = [];

  /** `pocket` is what the user has about them: a phone with its clock, and the recovery codes on a slip of paper. */
  constructor({ page, gateway, person, javaScript = true, pocket = { recoveryCodes: [], ahead: 0 } }) {
    const { email, name, password } = person;
    Object.assign(this, { page, gateway, javaScript, email, name, password, pocket });
  }

  /** The same user at another tab of the same browser. */
  async newTab() {
    const page = await this.page.context().newPage();
    return new Visitor({ ...this, page, person: this });
  }

  get authenticator() {
    return this.pocket.authenticator;
  }

  get recoveryCodes() {
    return this.pocket.recoveryCodes;
  }

  // What is on the screen

  heading() {
    return this.page.getByRole('heading', { level: 1 });
  }

  alert() {
    return this.page.getByRole('alert');
  }

  async expectHeading(text) {
    await expect(this.heading()).toHaveText(text);
  }

  /** What is to be seen on every page of the portal, and on no other. */
  portalMark = '[data-portal]';

  /** A page of the portal, at exactly this path and query. */
  async expectPortal(target) {
    await expect.poll(() => this.isAt(target), { message: `at ${target}, not at ${this.page.url()}` }).toBe(true);
    await expect(this.page.locator(this.portalMark)).toBeVisible();
  }

  /** Whether this is the address shown. What a page writes behind the # is its own affair. */
  isAt(target) {
    return this.page.url().split('#')[0] === this.gateway.url + target;
  }

  field(label) {
    return this.page.getByLabel(label, { exact: true });
  }

  button(name) {
    return this.page.getByRole('button', { name, exact: true });
  }

  async typedKey() {
    return (await this.page.locator('#key').innerText()).replace(/\s/g, '');
  }

  // What a user does

  async open(target) {
    return this.page.goto(this.gateway.url + target);
  }

  /** Does what leads to another page, and waits until that page is there. */
  async leave(act) {
    await Promise.all([this.page.waitForNavigation({ waitUntil: 'load' }), act()]);
  }

  async press(name) {
    await this.leave(() => this.button(name).click());
  }

  async givePassword(password = this.password) {
    await this.field('E-mail').fill(this.email);
    await this.field('Password').fill(password);
    await this.press('Sign in');
  }

  /** Types a code. With script the form goes off at the sixth digit; without, it takes a press. */
  async typeCode(code) {
    const type = () => this.field('Six-digit code').fill(code);
    if (this.javaScript) {
      await this.leave(type);
    } else {
      await type();
      await this.press('Continue');
    }
  }

  async giveCode() {
    await this.typeCode(await this.authenticator.code());
  }

  async giveRecoveryCode(code) {
    await this.field('Recovery code').fill(code);
    await this.press('Continue');
    // A code that was right is followed by a page that says how many are left.
    if ((await this.heading().allInnerTexts()).includes('You used a recovery code')) {
      await this.leave(() => this.page.getByRole('link', { name: /^Go to / }).click());
    }
  }

  /** Reads the key off the page into the app. A key that the app has already keeps its used codes. */
  async scan() {
    const key = await this.typedKey();
    if (this.authenticator?.key !== key) {
      this.pocket.authenticator = new Authenticator(key, this.pocket);
    }
  }

  async fillEnrolment({ code, name = 'Work phone' } = {}) {
    await this.field('Enter the six digits the app shows').fill(code ?? (await this.authenticator.code()));
    await this.field('Give this device a name').fill(name);
  }

  async enrol(choice) {
    await this.scan();
    await this.fillEnrolment(choice);
    await this.press('Save');
  }

  async readRecoveryCodes() {
    this.pocket.recoveryCodes = await this.page.locator('#codes').getByRole('listitem').allInnerTexts();
    return this.recoveryCodes;
  }

  async storeRecoveryCodes() {
    await this.readRecoveryCodes();
    await this.press("I've saved them");
  }

  /** Everything from no session at all to the page asked for. */
  async signIn(target = '/sims') {
    await this.open(target);
    await this.arriveAt(target);
  }

  async signOut() {
    await this.open('/.portcullis/account');
    await this.press('Sign out');
    await this.expectHeading('You are signed out');
  }

  /** Does what page after page asks for, until the one that was wanted is there. */
  async arriveAt(target, { atMost = 8 } = {}) {
    for (let steps = 0; !this.isAt(target); steps += 1) {
      if (steps === atMost) {
        throw new Error(`not at ${target} after ${atMost} pages: ${this.passed.join(' > ')}, now ${this.page.url()}`);
      }
      await this.#oneStep();
    }
    await this.expectPortal(target);
  }

  async #oneStep() {
    const heading = await this.heading().innerText();
    this.passed.push(heading);
    if (this.passed.slice(-3).filter((earlier) => earlier === heading).length === 3) {
      throw new Error(`“${heading}” for the third time, although everything it asks for was given: ${this.passed.join(' > ')}`);
    }
    switch (heading) {
      case 'Sign in':
        return this.givePassword();
      case 'Enter your code':
        return this.giveCode();
      case 'Set up your authenticator app':
        return this.enrol();
      case 'Save your recovery codes':
        return this.storeRecoveryCodes();
      case 'You are signed out':
        return this.leave(() => this.page.getByRole('link', { name: 'Sign in again' }).click());
      default:
        throw new Error(`a dead end at ${this.page.url()}: “${heading}” after ${this.passed.join(' > ')}`);
    }
  }

  /** Asks from within the page, as its script would. */
  async fetch(target, headers = {}) {
    return this.page.evaluate(
      async ([url, head]) => {
        const answer = await fetch(url, { headers: head, redirect: 'manual' });
        return { status: answer.status, type: answer.headers.get('content-type'), text: await answer.text() };
      },
      [this.gateway.url + target, headers],
    );
  }

  async whoami() {
    const answer = await this.fetch('/.portcullis/whoami');
    expect(answer.status).toBe(200);
    return JSON.parse(answer.text);
  }

  /** What must never be found in a log. Codes of six digits are left out: any number could look like one. */
  async secrets() {
    const cookies = await this.page.context().cookies();
    const values = cookies.map((cookie) => cookie.value);
    return [this.password, this.authenticator?.key, ...this.recoveryCodes, ...values].filter(Boolean);
  }
}
