// One real gateway: its folder, its configuration file, its process. Whatever a test wants to know of it, it asks as an
// operator would: through the command line, the admin listener and the log.

import { execFile } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { HOST } from './certificate.js';
import { freePort } from './ports.js';
import { Program } from './process.js';

const REPOSITORY = fileURLToPath(new URL('../../../', import.meta.url));
const BINARY = process.env.BROWSER_TESTS_GATEWAY ?? path.join(REPOSITORY, 'target/debug/portcullis');

// The gateway reads its configuration from PORTCULLIS_ variables too: what is set around the tests must not get in.
const ENVIRONMENT = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('PORTCULLIS_')));

export class Gateway {
  /** Minutes that its wall clock is ahead of ours. */
  ahead = 0;

  #program;
  #read = 0;

  /**
   * Writes the configuration and starts the gateway. `settings` go over the defaults below, section by section, or make
   * such of the port;
   * `publicPort` is the port of the public URL where something else than the gateway listens there.
   */
  static async start({ folder, host = HOST, certificate, upstream, publicPort, settings = {} }) {
    const [port, adminPort] = [await freePort(), await freePort()];
    const gateway = new Gateway(folder, port, adminPort, `https://${host}:${publicPort ?? port}`);
    gateway.settings = merge(
      {
        server: {
          listen: [`127.0.0.1:${port}`],
          public_url: gateway.url,
          admin_listen: `127.0.0.1:${adminPort}`,
          timeouts: { drain: '2s' },
        },
        tls: { certificate: certificate.certificate, key: certificate.key },
        portal: { name: 'IoT Connectivity', upstreams: [upstream], support: 'mailto:support@example.com' },
        storage: {
          database: `sqlite:${path.join(folder, 'portcullis.db')}`,
          key_file: path.join(folder, 'portcullis.key'),
        },
      },
      typeof settings === 'function' ? settings(gateway.port) : settings,
    );
    await gateway.resume();
    return gateway;
  }

  constructor(folder, port, adminPort, url) {
    fs.mkdirSync(folder, { recursive: true });
    this.port = port;
    this.adminPort = adminPort;
    this.url = url;
    const publicPort = new URL(url).port;
    // Cookies know no port, so the names of ours carry it.
    this.cookies = {
      session: `__Host-portcullis-${publicPort}`,
      login: `__Host-portcullis-login-${publicPort}`,
      forms: `__Host-portcullis-forms-${publicPort}`,
    };
    this.configuration = path.join(folder, 'portcullis.toml');
    this.log = path.join(folder, 'gateway.log');
  }

  /** Starts it again, with the same folder and ports. Settings that are given go over those it had. */
  async resume(settings = {}) {
    this.settings = merge(this.settings, settings);
    fs.writeFileSync(this.configuration, toToml(this.settings));
    const env = { ...ENVIRONMENT, ...(this.ahead > 0 ? clockAhead(this.ahead) : {}) };
    this.#program = new Program(BINARY, ['serve', '--config', this.configuration], { log: this.log, env });
    await this.#program.ready(() => this.#isReady());
  }

  /** Ends it as a service manager would; anything but a clean exit is a fault. */
  async stop() {
    const how = await this.#program.end('SIGTERM');
    if (how !== 0) {
      throw new Error(`the gateway ended with ${how}\n${this.#program.lastLines()}`);
    }
  }

  /** Ends it without a warning. */
  async kill() {
    await this.#program.end('SIGKILL');
  }

  /** Starts it again with its wall clock this many minutes ahead, as if it had been left alone for so long. */
  async passTime(minutes) {
    await this.stop();
    this.ahead = minutes;
    await this.resume();
  }

  async killAndResume() {
    await this.kill();
    await this.resume();
  }

  /** Runs `portcullis` beside the running gateway and answers with what it printed. */
  portcullis(args, input = '') {
    return new Promise((resolve, reject) => {
      const command = [...args, '--config', this.configuration];
      const child = execFile(BINARY, command, { env: ENVIRONMENT }, (error, stdout, stderr) => {
        if (error) {
          reject(new Error(`portcullis ${args.join(' ')}: ${error.message}\n${stderr}`));
        } else {
          resolve(stdout);
        }
      });
      child.stdin.end(input);
    });
  }

  async addUser({ email, password, name }) {
    await this.portcullis(['user', 'add', email, '--name', name, '--password-stdin'], `${password}\n`);
  }

  /** The devices of a user, as the command line lists them. */
  async devices(email) {
    return JSON.parse(await this.portcullis(['device', 'list', email, '--json']));
  }

  /** What has been logged since the last call. */
  newLog() {
    const text = fs.readFileSync(this.log, 'utf8');
    const fresh = text.slice(this.#read);
    this.#read = text.length;
    return fresh;
  }

  #isReady() {
    return new Promise((resolve) => {
      http
        .get({ host: '127.0.0.1', port: this.adminPort, path: '/ready', agent: false }, (answer) => {
          answer.resume();
          resolve(answer.statusCode === 200);
        })
        .once('error', () => resolve(false));
    });
  }
}

/** What makes the dynamic linker put libfaketime before the clock. Monotonic time stays what it is. */
function clockAhead(minutes) {
  const library = fs.readdirSync('/usr/lib', { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => path.join('/usr/lib', entry.name, 'faketime/libfaketimeMT.so.1'))
    .find((candidate) => fs.existsSync(candidate));
  if (library === undefined) {
    throw new Error('libfaketime is not installed');
  }
  return { LD_PRELOAD: library, FAKETIME: `+${minutes}m`, FAKETIME_DONT_FAKE_MONOTONIC: '1' };
}

function merge(base, over) {
  const merged = { ...base };
  for (const [key, value] of Object.entries(over)) {
    merged[key] = isTable(value) ? merge(base[key] ?? {}, value) : value;
  }
  return merged;
}

function isTable(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** Tables, strings, numbers, booleans, instants and lists of strings or of tables are all that the configuration needs. */
function toToml(table, name = '') {
  const entries = Object.entries(table);
  const own = entries.filter(([, value]) => !isTable(value)).map(([key, value]) => `${key} = ${tomlValue(value)}`);
  const heading = name && own.length > 0 ? [`[${name}]`] : [];
  const inner = entries
    .filter(([, value]) => isTable(value))
    .map(([key, value]) => toToml(value, name ? `${name}.${key}` : key));
  return [...heading, ...own, ...inner].join('\n') + '\n';
}

function tomlValue(value) {
  if (Array.isArray(value)) {
    return `[${value.map(tomlValue).join(', ')}]`;
  }
  if (isTable(value)) {
    return `{ ${Object.entries(value).map(([key, inner]) => `${key} = ${tomlValue(inner)}`).join(', ')} }`;
  }
  return value instanceof Date ? value.toISOString() : JSON.stringify(value);
}
