// A portal of a few lines that leads its users about: frames, redirects with fragments and to another host, an event stream,
// a service worker for a part of it.

import http from 'node:http';

import { freePort } from '../../browser/support/ports.js';

const WORKER = `
addEventListener('install', () => skipWaiting());
addEventListener('activate', (event) => event.waitUntil(clients.claim()));
addEventListener('fetch', (event) => {
  const shell = () => new Response('<!doctype html><title>Offline</title><h1>Offline</h1>', { headers: { 'content-type': 'text/html' } });
  if (event.request.mode === 'navigate') event.respondWith(fetch(event.request).catch(shell));
});`;

export class Crossroads {
  #server;

  static async start() {
    const portal = new Crossroads();
    portal.port = await freePort();
    portal.url = `http://127.0.0.1:${portal.port}`;
    portal.#server = http.createServer((request, response) => portal.#answer(request, response));
    await new Promise((resolve) => portal.#server.listen(portal.port, '127.0.0.1', resolve));
    return portal;
  }

  async stop() {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  #answer(request, response) {
    const { pathname, searchParams } = new URL(request.url, this.url);
    const led = { '/jump': '/long#below', '/chain': '/jump', '/inside': `${this.url}/long`, '/away': searchParams.get('to') }[pathname];
    if (led) {
      return response.writeHead(302, { location: led }).end();
    }
    if (pathname === '/app/worker.js') {
      return response.writeHead(200, { 'content-type': 'text/javascript' }).end(WORKER);
    }
    if (pathname === '/events') {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const timer = setInterval(() => response.write(`data: ${Date.now()}\n\n`), 50);
      return response.on('close', () => clearInterval(timer));
    }
    const inside = pathname === '/frames' ? '<iframe src="/long" name="inner" title="Inner"></iframe>' : '<p style="height: 3000px">Above<p id="below">Below';
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
    return response.end(`<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>Crossroads</title><h1>${pathname}</h1>${inside}`);
  }
}
