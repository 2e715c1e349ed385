// What a test gets: a portal, a gateway before it, a browser and users at it. A worker has one of each; every test has
// users and browser profiles of its own. Whatever the test is about, it also fails when a page of ours breaks its content
// security policy, throws, or asks another host for something, and when a secret of a user stands in the log.

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { test as base, expect } from '@playwright/test';

import { HOST, OTHER_HOST, makeCertificate } from './certificate.js';
import { Gateway } from './gateway.js';
import { Portal } from './portal.js';
import { Visitor, stranger } from './visitor.js';

const CHROMIUM = process.env.BROWSER_TESTS_CHROMIUM ?? '/usr/bin/chromium';

export { expect };

export const test = base.extend({
  /** What this file's gateway is told apart from the usual; see Gateway.start. */
  settings: [{}, { option: true, scope: 'worker' }],

  /** By which name it is called. */
  host: [HOST, { option: true, scope: 'worker' }],

  folder: [
    async ({}, use) => {
      const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'portcullis-browser-'));
      await use(folder);
      if (!process.env.BROWSER_TESTS_KEEP) {
        fs.rmSync(folder, { recursive: true, force: true });
      }
    },
    { scope: 'worker' },
  ],

  certificate: [async ({ folder, host }, use) => use(makeCertificate(folder, host)), { scope: 'worker' }],

  launchOptions: [
    async ({ certificate }, use) =>
      use({
        executablePath: CHROMIUM,
        args: [
          ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync'],
          ...['--disable-background-networking', '--disable-component-update'],
          `--host-resolver-rules=MAP ${HOST} 127.0.0.1, MAP ${OTHER_HOST} 127.0.0.1, MAP localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1`,
          // Only this one certificate is taken on trust. With all errors ignored, nothing would be cached, and what a
          // cache shows to the next person could not be seen.
          `--ignore-certificate-errors-spki-list=${certificate.pin}`,
        ],
      }),
    { scope: 'worker' },
  ],

  portal: [
    async ({}, use) => {
      const portal = await Portal.start();
      await use(portal);
      await portal.stop();
    },
    { scope: 'worker' },
  ],

  gateway: [
    async ({ folder, host, certificate, portal, settings }, use) => {
      const gateway = await Gateway.start({ folder: path.join(folder, 'gateway'), host, certificate, upstream: portal.url, settings });
      await use(gateway);
      await gateway.stop();
    },
    { scope: 'worker' },
  ],

  /** Makes users: each known to the gateway, at an empty page of a browser profile of their own. `abroad` are other hosts
   * that the portal may lead them to. */
  newVisitor: async ({ browser }, use, testInfo) => {
    const visits = [];
    await use(async ({ gateway, javaScript = true, person, pocket, abroad = [], ...profile }) => {
      const context = await browser.newContext({ javaScriptEnabled: javaScript, ...profile });
      const visit = { context, faults: watch(context, gateway, abroad) };
      visits.push(visit);
      const isKnown = person !== undefined;
      const page = await context.newPage();
      visit.visitor = new Visitor({ page, gateway, person: person ?? stranger(), javaScript, pocket });
      if (!isKnown) {
        await gateway.addUser(visit.visitor);
      }
      return visit.visitor;
    });
    const logs = new Map();
    for (const { visitor } of visits) {
      if (visitor && !logs.has(visitor.gateway)) {
        logs.set(visitor.gateway, visitor.gateway.newLog());
      }
    }
    for (const { context, faults, visitor } of visits) {
      const log = logs.get(visitor?.gateway) ?? '';
      const leaked = visitor ? (await visitor.secrets()).filter((secret) => log.includes(secret)) : [];
      await context.close();
      expect(faults, 'what the browser complained about').toEqual([]);
      expect(leaked, 'secrets in the log').toEqual([]);
    }
    if (testInfo.status !== testInfo.expectedStatus) {
      for (const log of logs.values()) {
        await testInfo.attach('gateway.log', { body: log, contentType: 'text/plain' });
      }
    }
  },

  /** One user of the worker's gateway. */
  visitor: async ({ newVisitor, gateway }, use) => use(await newVisitor({ gateway })),
});

/** Collects what the browser has to complain about, for as long as the profile lives. */
export function watch(context, gateway, abroad = []) {
  const faults = [];
  const { host } = new URL(gateway.url);
  const isOurs = (url) => url.startsWith(`${gateway.url}/.portcullis/`);
  context.on('console', (message) => {
    if (/content security policy/i.test(message.text())) {
      faults.push(`${message.page()?.url()}: ${message.text()}`);
    }
  });
  context.on('weberror', (error) => {
    if (isOurs(error.page()?.url() ?? '')) {
      faults.push(`${error.page().url()}: ${error.error().message}`);
    }
  });
  context.on('request', (request) => {
    const url = new URL(request.url());
    const isForeign = /^(http|ws)s?:$/.test(url.protocol) && url.host !== host && !abroad.includes(url.host);
    if (isForeign && (request.isNavigationRequest() || isOurs(request.frame().url()))) {
      faults.push(`asked for ${url}`);
    }
  });
  return faults;
}
