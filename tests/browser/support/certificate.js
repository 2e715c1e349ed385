// A certificate for the hosts that the tests call portals by, made with openssl for one run.

import { execFileSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

/** The portal's name in every test. The browser finds it on the loopback interface, and nothing else anywhere. */
export const HOST = 'portal.test';
/** That of a second site, where a test has one. */
export const OTHER_HOST = 'crm.test';

export function makeCertificate(folder, host = HOST) {
  const certificate = path.join(folder, 'fullchain.pem');
  const key = path.join(folder, 'privkey.pem');
  execFileSync(
    'openssl',
    ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']
      .concat(['-subj', `/CN=${host}`, '-addext', `subjectAltName=DNS:${host},DNS:${OTHER_HOST}`])
      .concat(['-keyout', key, '-out', certificate]),
    { stdio: 'ignore' },
  );
  const { publicKey } = new crypto.X509Certificate(fs.readFileSync(certificate));
  const pin = crypto.createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
  return { certificate, key, pin };
}

/** An authority of clients, and what it has signed for somebody with this e-mail. */
export function makeClientCertificate(folder, email) {
  const [authority, authorityKey, certPath, keyPath, request] = ['authority.pem', 'authority.key', 'client.pem', 'client.key', 'client.csr'].map(
    (name) => path.join(folder, name),
  );
  const openssl = (...words) => execFileSync('openssl', words, { stdio: 'ignore' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl('req', '-x509', ...key, '-days', '2', '-subj', '/CN=Clients', '-keyout', authorityKey, '-out', authority);
  const names = ['-addext', `subjectAltName=email:${email}`, '-addext', 'extendedKeyUsage=clientAuth'];
  openssl('req', ...key, '-subj', '/CN=client', ...names, '-keyout', keyPath, '-out', request);
  const by = ['-CA', authority, '-CAkey', authorityKey, '-CAcreateserial', '-copy_extensions', 'copy'];
  openssl('x509', '-req', '-in', request, ...by, '-days', '2', '-out', certPath);
  return { authority, certPath, keyPath };
}
