// A browser that has a certificate for its user: in place of the password, and for nothing else. Playwright shows it on Chromium's
// behalf, from a program of its own that finds hosts by the machine's names; hence this one.

import fs from 'node:fs';
import path from 'node:path';

import { makeCertificate, makeClientCertificate } from '../support/certificate.js';
import { Gateway } from '../support/gateway.js';
import { examine } from '../support/measure.js';
import { expect, test as base } from '../support/world.js';

const ADA = { email: 'ada@example.com', name: 'Ada', password: 'gravel teapot 4711 under the stairs' };
const BUTTON = 'Continue with the certificate';

const test = base.extend({
  /** A gateway that knows Ada's certificate, and what a browser has that shows it. */
  known: async ({ folder, portal }, use, testInfo) => {
    const here = path.join(folder, `client-certificate-${testInfo.testId}`);
    fs.mkdirSync(here);
    const { authority, certPath, keyPath } = makeClientCertificate(here, ADA.email);
    const gateway = await Gateway.start({
      folder: here,
      host: 'localhost',
      certificate: makeCertificate(here, 'localhost'),
      upstream: portal.url,
      settings: {
        tls: {
          client_ca: authority,
          clients: [{ san: `email:${ADA.email}`, user: ADA.email, as: 'first_factor' }],
        },
      },
    });
    await gateway.addUser(ADA);
    const clientCertificates = [{ origin: gateway.url, certPath, keyPath }];
    await use({ gateway, shows: { ignoreHTTPSErrors: true, clientCertificates } });
    await gateway.stop();
  },
});

for (const javaScript of [true, false]) {
  test(`the certificate is in place of the password, and the code comes after it, ${javaScript ? 'with' : 'without'} script`, async ({ known, newVisitor }) => {
    const { gateway, shows } = known;
    const visitor = await newVisitor({ gateway, person: ADA, javaScript, ...shows });
    const { page } = visitor;
    await visitor.open('/sims?q=late');
    await visitor.expectHeading('Sign in');
    await expect(page.getByText(`Your browser has a certificate for ${ADA.email}.`)).toBeVisible();
    if (javaScript) {
      await examine(page, 'login-certificate');
    }
    await visitor.press(BUTTON);
    await visitor.enrol();
    await visitor.storeRecoveryCodes();
    await visitor.expectPortal('/sims?q=late');

    await visitor.signOut();
    await visitor.open('/sims');
    await visitor.press(BUTTON);
    await visitor.expectHeading('Enter your code');
    // The certificate alone opens nothing.
    const tab = await visitor.newTab();
    await tab.open('/sims');
    await tab.expectHeading('Sign in');
    await visitor.giveCode();
    await visitor.expectPortal('/sims');
  });
}

test('a browser without the certificate gets the sign-in page that everybody gets', async ({ known, newVisitor }) => {
  const { gateway } = known;
  const visitor = await newVisitor({ gateway, person: ADA, ignoreHTTPSErrors: true });
  await visitor.open('/sims');
  await visitor.expectHeading('Sign in');
  await expect(visitor.button(BUTTON)).toBeHidden();
  await visitor.arriveAt('/sims');
});
