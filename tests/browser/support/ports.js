// Ports of our own on the loopback interface. Below the range that the kernel takes for outgoing connections, so that a
// gateway that was killed finds its port free when it starts again.

import net from 'node:net';

const LOWEST = 10_000;
const HIGHEST = 32_000;

const given = new Set();

export async function freePort() {
  for (let tries = 0; tries < 200; tries += 1) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST));
    if (!given.has(port) && (await canListen(port))) {
      given.add(port);
      return port;
    }
  }
  throw new Error('no free port on 127.0.0.1');
}

function canListen(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
