// Verifies assertions as a portal in Node does, with jose.
//
// Arguments: the URL of the keys, where to find that host, the certificate to trust, issuer, audience. Each line of
// standard input is a token, each line of standard output what came of it.

import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { request } from "node:https";
import { createInterface } from "node:readline";

import { calculateJwkThumbprint, createRemoteJWKSet, customFetch, decodeProtectedHeader, errors, jwtVerify } from "jose";

// Node 18 does not have it by itself.
globalThis.crypto ??= webcrypto;

const [url, address, certificate, issuer, audience] = process.argv.slice(2);
const ca = readFileSync(certificate);

// The gateway of a test has a port of its own, which is no part of its name.
const fetchKeys = (target, { headers, signal }) =>
  new Promise((resolve, reject) => {
    const { hostname, pathname } = new URL(target);
    const [host, port] = address.split(":");
    const options = {
      host, port, path: pathname, servername: hostname, ca, signal, agent: false,
      headers: { ...Object.fromEntries(headers), host: hostname },
    };
    request(options, async (answer) => {
      const parts = await answer.toArray();
      resolve(new Response(Buffer.concat(parts), { status: answer.statusCode, headers: answer.headers }));
    })
      .on("error", reject)
      .end();
  });

const keys = createRemoteJWKSet(new URL(url), { [customFetch]: fetchKeys });

for await (const line of createInterface({ input: process.stdin })) {
  const token = line.trim();
  let outcome;
  try {
    const options = { algorithms: ["ES256"], issuer, audience, clockTolerance: 30 };
    const { payload } = await jwtVerify(token, keys, options);
    const { kid } = decodeProtectedHeader(token);
    const published = keys.jwks().keys.find((key) => key.kid === kid);
    if ((await calculateJwkThumbprint(published)) !== kid) throw new Error("kid is not the thumbprint of its key");
    outcome = { claims: payload };
  } catch (error) {
    if (!(error instanceof errors.JOSEError)) throw error;
    outcome = { refused: error.code };
  }
  console.log(JSON.stringify(outcome));
}
