// A portal of a few lines for programs: `/hooks/…` takes messages by their signature, over the bytes as they came; everything
// else asks for a token of its own, and says who the gateway says it is from.

import crypto from 'node:crypto';
import http from 'node:http';

import { freePort } from '../../browser/support/ports.js';

export const SECRET = 'of the sender and the portal';
export const OWN = 'Bearer of-the-portal';

export class Receiver {
  #server;

  static async start() {
    const portal = new Receiver();
    portal.port = await freePort();
    portal.url = `http://127.0.0.1:${portal.port}`;
    portal.#server = http.createServer((request, response) => {
      const parts = [];
      request.on('data', (part) => parts.push(part));
      request.on('end', () => answer(request, Buffer.concat(parts), response));
    });
    await new Promise((resolve) => portal.#server.listen(portal.port, '127.0.0.1', resolve));
    return portal;
  }

  async stop() {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }
}

export function sign(body) {
  return `sha256=${crypto.createHmac('sha256', SECRET).update(body).digest('hex')}`;
}

function answer(request, body, response) {
  const { headers } = request;
  const isHook = request.url.startsWith('/hooks/');
  const isWelcome = isHook ? headers['x-hub-signature-256'] === sign(body) : [undefined, OWN].includes(headers.authorization);
  const told = Object.fromEntries(Object.entries(headers).filter(([name]) => /^(remote-|authorization|x-portcullis|content-|cookie)/.test(name)));
  response.writeHead(isWelcome ? 200 : 403, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ length: body.length, ...told }));
}
