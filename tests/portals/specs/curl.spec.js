// curl in the three ways of docs/tokens.md, and a sender of signed messages that a rule lets through.

import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import zlib from 'node:zlib';

import { expect } from '../support/behind.js';
import { machines } from '../support/machines.js';
import { OWN, Receiver, sign } from '../support/receiver.js';

const test = machines(() => Receiver.start(), {
  access: { rules: [{ path: '/hooks/*', methods: ['POST'], level: 'bypass', anonymous: true }] },
});

test('curl sends a token as Bearer, as a password, or beside a token of the portal', async ({ run, token, gateway, home, certificate }) => {
  const secret = await token('curl', '--service', 'curl');
  fs.writeFileSync(path.join(home, 'headers'), `Authorization: Bearer ${secret}\n`);
  fs.writeFileSync(path.join(home, '.netrc'), `machine localhost login any password ${secret}\n`, { mode: 0o600 });
  const ways = {
    bearer: ['-H', `Authorization: Bearer ${secret}`],
    'bearer in a file': ['-H', '@headers'],
    'oauth2-bearer': ['--oauth2-bearer', secret],
    basic: ['-u', `any:${secret}`],
    'basic when asked': ['--anyauth', '-u', `any:${secret}`],
    netrc: ['--netrc'],
    'beside another': ['-H', `X-Portcullis-Token: ${secret}`, '-H', `Authorization: ${OWN}`],
  };
  for (const version of ['--http1.1', '--http2']) {
    for (const [name, way] of Object.entries(ways)) {
      const answer = await curl(run, certificate, [version, ...way, `${gateway.url}/api/sims`]);
      const authorization = name === 'beside another' ? OWN : undefined;
      const told = answer.json();
      expect([answer.status, told['remote-user'], told.authorization], `${name} ${version}`).toEqual([200, 'service:curl', authorization]);
      expect(answer.body).not.toContain(secret);
    }
    // A body, and one that is answered with 401 before it is whole, and sent again: over HTTP/2 curl 7.88 waits for ever then,
    // whatever the server is.
    const file = path.join(home, 'body');
    fs.writeFileSync(file, crypto.randomBytes(2 << 20));
    for (const way of [ways.basic, ...(version === '--http1.1' ? [ways['basic when asked']] : [])]) {
      const sent = await curl(run, certificate, [version, ...way, '-T', file, `${gateway.url}/api/file`]);
      expect([sent.status, sent.json().length], way.join(' ').replace(secret, '…')).toEqual([200, 2 << 20]);
    }
  }
  for (const version of ['--http1.1', '--http2']) {
    for (const more of [[], ['-H', 'Expect:', '--data-binary', `@${path.join(home, 'body')}`]]) {
      const none = await curl(run, certificate, [version, ...more, `${gateway.url}/api/sims`]);
      expect([none.status, none.type]).toEqual([401, 'application/problem+json']);
    }
  }
});

test('signed messages come through byte by byte, and nobody else by their way', async ({ run, gateway, home, certificate }) => {
  const messages = {
    empty: Buffer.alloc(0),
    json: Buffer.from('{"sim": "8944…", "état": "aktiv"}\r\n'),
    awkward: Buffer.from('\uFEFFa\0b\r\nc\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n'),
    form: Buffer.from('payload=%7B%22a%22%3A1%7D+%20&_method=DELETE&csrf='),
    compressed: zlib.gzipSync('{"sim": 1}'),
    large: crypto.randomBytes(3 << 20),
  };
  const types = { json: 'application/json', form: 'application/x-www-form-urlencoded', compressed: 'application/json', large: 'application/octet-stream' };
  const ways = { plain: [], chunked: ['-H', 'Transfer-Encoding: chunked'], 'asking first': ['-H', 'Expect: 100-continue'] };
  for (const [name, body] of Object.entries(messages)) {
    const file = path.join(home, name);
    fs.writeFileSync(file, body);
    const fields = ['-H', `X-Hub-Signature-256: ${sign(body)}`, '-H', `Content-Type: ${types[name] ?? 'text/plain'}`]
      .concat(name === 'compressed' ? ['-H', 'Content-Encoding: gzip'] : [])
      .concat(['-H', 'Authorization: Bearer of-the-sender', '-H', 'Remote-User: root', '-H', 'User-Agent: Hookshot/1']);
    for (const version of ['--http1.1', '--http2']) {
      for (const [how, way] of Object.entries(ways)) {
        // HTTP/2 has no chunks.
        if (version === '--http2' && how === 'chunked') continue;
        const answer = await curl(run, certificate, [version, ...fields, ...way, '--data-binary', `@${file}`, `${gateway.url}/hooks/sims?a=b`]);
        const { length, authorization, ...told } = answer.json();
        expect([answer.status, length, authorization], `${name}, ${how}, ${version}`).toEqual([200, body.length, 'Bearer of-the-sender']);
        expect(told).not.toHaveProperty('remote-user');
        expect(told['content-encoding']).toBe(name === 'compressed' ? 'gzip' : undefined);
      }
    }
  }
  const forged = await curl(run, certificate, ['-H', `X-Hub-Signature-256: ${sign('other')}`, '-d', 'this', `${gateway.url}/hooks/sims`]);
  expect([forged.status, forged.json().length]).toEqual([403, 4]);
  for (const [target, more] of [['/hooks/sims', []], ['/api/sims', ['-d', 'this']], ['/hooks/../api/sims', ['-d', 'this', '--path-as-is']], ['/hooks', ['-d', 'this']]]) {
    const answer = await curl(run, certificate, ['-H', `X-Hub-Signature-256: ${sign('this')}`, ...more, gateway.url + target]);
    expect([400, 401], `${target}: ${answer.body}`).toContain(answer.status);
  }
});

/** What curl was answered with. */
async function curl(run, { certificate }, args) {
  const done = await run('curl', ['-sS', '--cacert', certificate, '-w', '\n%{http_code} %{content_type}', ...args]);
  expect(done.status, done.err).toBe(0);
  const at = done.out.lastIndexOf('\n');
  const body = done.out.slice(0, at);
  const [status, type] = done.out.slice(at + 1).split(' ');
  return { status: Number(status), type, body, json: () => JSON.parse(body) };
}
