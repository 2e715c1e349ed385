// The portal behind the wall: pages, forms, JSON, a live WebSocket, and an echo of the headers it was sent. It knows
// nothing of logins and sets no cache headers, as portals do. It counts what reaches it.

import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';

import { WebSocketServer } from 'ws';

import { freePort } from './ports.js';

const SIMS = [
  { iccid: '8949000000000000011', label: 'Pump 11', state: 'online' },
  { iccid: '8949000000000000029', label: 'Tracker 29', state: 'offline' },
];

// A service worker that answers whatever page is opened by itself, as those of single-page applications do.
const WORKER = `
addEventListener('install', () => skipWaiting());
addEventListener('activate', (event) => event.waitUntil(clients.claim()));
addEventListener('fetch', (event) => {
  if (event.request.mode === 'navigate') {
    const shell = '<!doctype html><html lang="en"><title>Shell</title><body data-portal><h1>Shell</h1>';
    event.respondWith(new Response(shell, { headers: { 'content-type': 'text/html' } }));
  }
});`;

export class Portal {
  #server;
  #sockets = new Set();

  /** Method and target of every request that arrived. */
  requests = [];

  /** Every form that was sent to it: target, content type and the body in bytes. */
  forms = [];

  static async start() {
    const portal = new Portal();
    portal.port = await freePort();
    await portal.resume();
    return portal;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  async resume() {
    this.#server = http.createServer((request, response) => this.#answer(request, response));
    const live = new WebSocketServer({ noServer: true });
    this.#server.on('upgrade', (request, socket, head) => {
      this.requests.push(`UPGRADE ${request.url}`);
      live.handleUpgrade(request, socket, head, (client) => tick(client));
    });
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    await new Promise((resolve) => this.#server.listen(this.port, '127.0.0.1', resolve));
  }

  /** Serves its pages by itself over TLS, as before there was a gateway. Answers with what ends that. */
  async serveAlone({ port, certificate, key }) {
    const pair = { cert: fs.readFileSync(certificate), key: fs.readFileSync(key) };
    const server = https.createServer(pair, (request, response) => this.#answer(request, response));
    await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
    return () => new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
  }

  /** Refuses connections from now on, as a portal does that has crashed. */
  async stop() {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#sockets.forEach((socket) => socket.destroy());
    await closed;
  }

  #answer(request, response) {
    this.requests.push(`${request.method} ${request.url}`);
    const { pathname, searchParams } = new URL(request.url, this.url);
    if (pathname.endsWith('/sw.js')) {
      response.writeHead(200, { 'content-type': 'text/javascript', 'service-worker-allowed': '/' });
      return response.end(WORKER);
    }
    if (pathname === '/api/sims') {
      return sendJson(response, SIMS);
    }
    if (pathname === '/api/cached') {
      response.setHeader('cache-control', 'private, max-age=3600');
      response.setHeader('set-cookie', ['portal-session=of-the-portal; Path=/; HttpOnly', 'portal-language=English-or-so; Path=/']);
      return sendJson(response, SIMS);
    }
    if (pathname === '/auth/logout') {
      response.writeHead(302, { location: '/', 'set-cookie': 'portal-session=; Max-Age=0; Path=/' });
      return response.end();
    }
    if (pathname === '/leave') {
      response.writeHead(302, { location: searchParams.get('to'), 'set-cookie': 'portal-state=of-the-portal; Path=/' });
      return response.end();
    }
    if (pathname === '/headers') {
      return sendJson(response, request.headers);
    }
    if (pathname === '/sims') {
      return sendPage(response, 'SIM list', searchParams.get('q') ?? '');
    }
    if (pathname === '/raw') {
      response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
      return response.end(searchParams.get('html'));
    }
    if (pathname.startsWith('/page/')) {
      return sendNotes(response, pathname.slice('/page/'.length));
    }
    if (pathname === '/') {
      return sendPage(response, 'Overview', '');
    }
    if (pathname === '/sims/new') {
      return request.method === 'POST' ? this.#take(request, response) : sendForms(response, searchParams.get('tab') ?? '1');
    }
    response.writeHead(404, { 'content-type': 'text/plain' });
    return response.end('no such page');
  }

  /** Takes a form as portals do: and leads on, so that a reload does not send it again; or shows it again with a fault. */
  async #take(request, response) {
    const body = Buffer.concat(await request.toArray());
    this.forms.push({ target: request.url, type: request.headers['content-type'], body });
    if (new URLSearchParams(String(body)).get('label') === '') {
      return sendFaults(response);
    }
    response.writeHead(303, { location: '/sims?q=saved' });
    response.end();
  }
}

function tick(client) {
  let count = 0;
  const timer = setInterval(() => client.send(String((count += 1))), 50);
  client.on('close', () => clearInterval(timer));
  client.on('error', () => clearInterval(timer));
}

function sendJson(response, value) {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}

function sendPage(response, heading, query) {
  const shown = query.replace(/[^\w ]/g, '');
  response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
  response.end(`<!doctype html><html lang="en"><head><title>${heading}</title></head>
<body data-portal><main><h1>${heading}</h1><p id="query">${shown}</p><p>Confidential: ${SIMS[0].iccid}</p>
<nav><a href="/">Overview</a> <a href="/sims">SIM list</a> <a href="/auth/logout">Log out</a></nav></main></body></html>`);
}

/** A page to write on, of a kind that is hard on whoever puts something into it. */
function sendNotes(response, kind) {
  const { policy, before = '<!doctype html><html lang="en"><head>', script = '', around = ['<main>', '</main>'], type = 'text/html; charset=utf-8' } = NOTES[kind];
  response.setHeader('content-type', type);
  if (policy) {
    response.setHeader('content-security-policy', policy);
  }
  response.write(before);
  response.end(`<title>Notes</title><body>${around[0]}<h1>Notes</h1><label data-portal>Notes <textarea></textarea></label>${around[1]}${script}`);
}

const NOTES = {
  strict: { policy: "default-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'; frame-ancestors 'none'" },
  nonce: {
    policy: "default-src 'self'; script-src 'nonce-bm90ZXM=' 'strict-dynamic'; style-src 'none'; object-src 'none'; base-uri 'none'",
    script: '<script nonce="bm90ZXM=">document.body.dataset.ran = "yes"</script>',
  },
  bare: { before: '<!doctype html><!-- <head> -->' },
  dialog: {
    around: ['<dialog aria-label="Note">', '</dialog>'],
    script: '<script>document.querySelector("dialog").showModal()</script>',
  },
  // An address of another host for all that is not a whole one, and a policy of the page's own.
  base: { before: '<!doctype html><html lang="en"><head><base href="https://elsewhere.example/">' },
  meta: {
    before: `<!doctype html><html lang="en"><head><meta http-equiv="content-security-policy" content="default-src 'none'; connect-src 'self'">`,
  },
  // Everything is somewhere else than it says, cut off and covered.
  moved: {
    before: `<!doctype html><html lang="en"><head><style>
      html { transform: translate(0, -400px) scale(0.5); overflow: hidden; opacity: 0.3 }
      dialog { transform: translate(-50%, -50%); overflow: hidden; contain: strict; width: 300px; height: 200px }
      ::backdrop { background: rgb(200 0 0 / 50%) }
    </style>`,
    around: ['<dialog aria-label="Note">', '</dialog>'],
    script: '<script>document.querySelector("dialog").showModal()</script>',
  },
  // Whatever the page says of everything in it.
  loud: {
    before: `<!doctype html><html lang="en"><head><style>
      * { --surface: red; --ink: red; --muted: red; --line: red; --fill: red; --strong: red; --accent: red }
      body, body *, html > :not(head, body), html > :not(head, body) * {
        all: unset !important; display: block !important; max-width: 100% !important; color: red !important; background: yellow !important;
        font: italic 700 30px/2 serif !important; letter-spacing: 0.2em !important; direction: rtl !important; text-transform: uppercase !important;
      }
      html > :not(head, body), [popover] {
        display: none !important; position: static !important; visibility: hidden !important; opacity: 0 !important; z-index: -1 !important;
        transform: rotate(180deg) !important; filter: blur(9px) !important; clip-path: circle(0) !important; pointer-events: none !important;
        width: 1px !important; height: 1px !important; overflow: hidden !important; animation: spin 1s infinite !important; inset: auto !important;
      }
      ::backdrop { background: rgb(200 0 0 / 50%) !important; display: block !important }
      @keyframes spin { to { transform: rotate(1turn) } }
    </style>`,
  },
  sandbox: { policy: 'sandbox allow-scripts allow-forms allow-same-origin' },
};

/** A form of text, and one with a file. */
function sendForms(response, tab) {
  response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
  response.end(`<!doctype html><html lang="en"><head><title>New SIM</title></head><body data-portal><main><h1>New SIM</h1>
<form method="post" action="/sims/new?tab=${encodeURIComponent(tab)}&amp;q=%2F+x"><input type="hidden" name="token" value="the portal's own">
<label>Label <input name="label"></label><label>Notes <textarea name="notes"></textarea></label><button name="act" value="add">Add</button></form>
<form method="post" enctype="multipart/form-data" action="/sims/new"><label>Batch <input name="batch"></label>
<label>List <input type="file" name="list"></label><button>Upload</button></form></main></body></html>`);
}

/** The form once more, to be sent to the address it is at. */
function sendFaults(response) {
  response.writeHead(422, { 'content-type': 'text/html; charset=utf-8' });
  response.end(`<!doctype html><html lang="en"><head><title>New SIM</title></head><body data-portal><main><h1>New SIM</h1>
<form method="post"><p>A label is missing.</p><label>Label <input name="label"></label><button>Add</button></form></main></body></html>`);
}
