// A load balancer in its simplest form: TCP, one target at a time. Turning it to another target cuts what is open, so
// that the browser's next request arrives there.

import net from 'node:net';

import { freePort } from './ports.js';

export class Switch {
  #server;
  #open = new Set();

  static async start() {
    const turn = new Switch();
    turn.port = await freePort();
    turn.#server = net.createServer((client) => turn.#connect(client));
    await new Promise((resolve) => turn.#server.listen(turn.port, '127.0.0.1', resolve));
    return turn;
  }

  /** Sends connections to this gateway from now on. */
  to(gateway) {
    this.target = gateway.port;
    this.#open.forEach((socket) => socket.destroy());
  }

  async stop() {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#open.forEach((socket) => socket.destroy());
    await closed;
  }

  #connect(client) {
    const gateway = net.connect(this.target, '127.0.0.1');
    for (const [socket, other] of [[client, gateway], [gateway, client]]) {
      this.#open.add(socket);
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        this.#open.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  }
}
