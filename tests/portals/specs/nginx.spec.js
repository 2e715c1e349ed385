// Files on nginx: compressed as they are sent, folders that redirect to their slash, listings made by nginx.

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

import { behind, endSession, expect, firstLogin, laterLogin, listen, saved } from '../support/behind.js';
import { Server } from '../support/server.js';

const STYLE = `main { color: rgb(1, 2, 3) }\n${'/* the same again and again */\n'.repeat(2000)}`;
const BYTES = Buffer.from(Array.from({ length: 3_000_000 }, (_, at) => (at * at) % 251));
// Names that are easily encoded once too often.
const NAMES = ['100 % pure.bin', 'a&b=c+d.bin', 'list “ü”.bin', 'q?x#y.bin', "quo'te.bin"];

const test = behind(startNginx);

test('a folder without its slash, and everything in it', async ({ visitor }) => {
  const { page } = visitor;
  const faults = listen(visitor);
  const answers = new Map();
  page.on('response', (answer) => answers.set(new URL(answer.url()).pathname, answer));

  await test.step('nginx adds the slash, and the user stays at the gateway', async () => {
    await firstLogin(visitor, '/manual', '/manual/');
    await expect(page.getByRole('heading', { level: 1 })).toHaveText('Manual');
  });

  await test.step('the style is there and came compressed', async () => {
    await expect(page.locator('main')).toHaveCSS('color', 'rgb(1, 2, 3)');
    const style = answers.get('/manual/style.css');
    expect(await style.headerValue('content-encoding')).toBe('gzip');
    expect((await style.request().sizes()).responseBodySize).toBeLessThan(STYLE.length / 50);
  });

  await test.step('a listing leads to every file, whatever its name', async () => {
    await visitor.open('/files');
    await expect(page).toHaveURL(`${visitor.gateway.url}/files/`);
    for (const name of NAMES) {
      const { bytes } = await saved(page, () => page.getByRole('link', { name, exact: true }).click());
      expect(bytes.toString(), name).toBe(name);
    }
  });

  await test.step('a long file comes whole, and in parts', async () => {
    const { bytes } = await saved(page, () => page.getByRole('link', { name: 'long.dat' }).click());
    expect(bytes.equals(BYTES)).toBe(true);
    const part = await page.evaluate(async () => {
      const answer = await fetch('long.dat', { headers: { range: 'bytes=1000-1003' } });
      return { status: answer.status, bytes: [...new Uint8Array(await answer.arrayBuffer())] };
    });
    expect(part).toEqual({ status: 206, bytes: [...BYTES.subarray(1000, 1004)] });
  });

  await test.step('what the browser has is not sent again', async () => {
    await visitor.open('/manual/');
    const [answer] = await Promise.all([page.waitForResponse(/style\.css$/), page.reload()]);
    expect((await answer.request().sizes()).responseBodySize).toBeLessThan(100);
  });
  expect(faults).toEqual([]);
});

test('the end of the session stops a download, and the way back leads to the same page', async ({ visitor }) => {
  const { page } = visitor;
  await firstLogin(visitor, '/files/');
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('link', { name: 'slow.dat' }).click(),
  ]);
  await endSession(visitor);
  expect(await download.failure()).not.toBeNull();
  await page.getByRole('link', { name: 'long.dat' }).click();
  await laterLogin(visitor, '/manual/#chapter-2');
  await expect(page.locator('#chapter-2')).toBeInViewport();
});

async function startNginx(folder) {
  const root = path.join(folder, 'root');
  fs.mkdirSync(path.join(root, 'manual'), { recursive: true });
  fs.mkdirSync(path.join(root, 'files'));
  const chapters = `<p style="height: 3000px">Chapter 1</p><h2 id="chapter-2">Chapter 2</h2>`;
  fs.writeFileSync(
    path.join(root, 'manual/index.html'),
    `<!doctype html><title>Manual</title><link rel="icon" href="data:,"><link rel="stylesheet" href="style.css"><main><h1>Manual</h1>${chapters}</main>`,
  );
  fs.writeFileSync(path.join(root, 'manual/style.css'), STYLE);
  NAMES.forEach((name) => fs.writeFileSync(path.join(root, 'files', name), name));
  fs.writeFileSync(path.join(root, 'files/long.dat'), BYTES);
  fs.writeFileSync(path.join(root, 'files/slow.dat'), BYTES);
  fs.writeFileSync(path.join(root, 'favicon.ico'), '');
  return Server.start({
    folder,
    command: (_, port) => {
      fs.writeFileSync(path.join(folder, 'nginx.conf'), configuration(folder, root, port));
      return ['nginx', '-c', path.join(folder, 'nginx.conf'), '-p', folder, '-e', path.join(folder, 'error.log')];
    },
  });
}

function configuration(folder, root, port) {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((kind) => `${kind}_temp_path ${folder}/${kind};`)
    .join(' ');
  return `daemon off; user ${execFileSync('id', ['-un'], { encoding: 'utf8' }).trim()}; worker_processes 1; pid ${folder}/nginx.pid;
events {}
http {
  include /etc/nginx/mime.types; default_type application/octet-stream; access_log off; ${temporary}
  gzip on; gzip_types text/css; autoindex on; charset utf-8;
  server {
    listen 127.0.0.1:${port}; root ${root};
    location = /files/slow.dat { limit_rate 100k; }
  }
}`;
}
