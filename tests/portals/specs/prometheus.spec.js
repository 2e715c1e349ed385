// A Prometheus that collects from another behind the gateway, with a token in a file that it reads each time.

import fs from 'node:fs';
import path from 'node:path';

import { expect } from '../support/behind.js';
import { machines } from '../support/machines.js';
import { Server } from '../support/server.js';

// The one that is collected from, and the one that collects: both are the same program.
const test = machines((folder) => startPrometheus(folder, ''));

test('what it collects goes on through a rotation, and stops when the token is over', async ({ token, gateway, home, certificate }) => {
  const credentials = path.join(home, 'token');
  fs.writeFileSync(credentials, `${await token('collector', '--service', 'prometheus', '--path', '/metrics', '--method', 'GET')}\n`);
  const collector = await startPrometheus(path.join(home, 'collector'), `
  - job_name: portal
    scheme: https
    authorization: { credentials_file: ${credentials} }
    tls_config: { ca_file: ${certificate.certificate} }
    static_configs: [{ targets: ["${new URL(gateway.url).host}"] }]
  - job_name: stranger
    scheme: https
    tls_config: { ca_file: ${certificate.certificate} }
    static_configs: [{ targets: ["${new URL(gateway.url).host}"] }]
`);
  try {
    await expect.poll(() => target(collector, 'portal')).toEqual(['up', '']);
    await expect.poll(() => target(collector, 'stranger')).toEqual(['down', 'server returned HTTP status 401 Unauthorized']);
    await expect.poll(async () => (await query(collector, 'prometheus_build_info{job="portal"}')).length).toBe(1);
    const { token: next } = JSON.parse(await gateway.portcullis(['token', 'rotate', 'collector', '--json']));
    await expect.poll(() => target(collector, 'portal')).toEqual(['down', 'server returned HTTP status 401 Unauthorized']);
    fs.writeFileSync(credentials, next);
    await expect.poll(() => target(collector, 'portal')).toEqual(['up', '']);
    await gateway.portcullis(['token', 'revoke', 'collector']);
    await expect.poll(() => target(collector, 'portal')).toEqual(['down', 'server returned HTTP status 401 Unauthorized']);
  } finally {
    await collector.stop();
  }
});

async function ask(collector, what) {
  return (await (await fetch(`${collector.url}/api/v1/${what}`)).json()).data;
}

async function query(collector, expression) {
  return (await ask(collector, `query?query=${encodeURIComponent(expression)}`)).result;
}

/** How the last collection of a job went. */
async function target(collector, job) {
  const { activeTargets } = await ask(collector, 'targets?state=active');
  const found = activeTargets.find((each) => each.labels.job === job);
  return [found?.health, found?.lastError];
}

async function startPrometheus(folder, jobs) {
  fs.mkdirSync(folder, { recursive: true });
  const file = path.join(folder, 'prometheus.yml');
  fs.writeFileSync(file, `global: { scrape_interval: 500ms, scrape_timeout: 500ms }\nscrape_configs: ${jobs || '[]'}\n`);
  return Server.start({
    folder,
    command: (_, port) => ['prometheus', `--config.file=${file}`, `--storage.tsdb.path=${folder}/data`, `--web.listen-address=127.0.0.1:${port}`],
    ready: '/-/ready',
  });
}
