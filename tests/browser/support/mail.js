// A mail server: takes every mail, and hands out its links. Only as much SMTP as the gateway speaks on loopback; what mail is
// made of is tested elsewhere.

import net from 'node:net';

export class MailServer {
  #server;
  #mail = [];
  #waiting = [];

  static async start() {
    const mail = new MailServer();
    mail.#server = net.createServer((socket) => mail.#serve(socket));
    await new Promise((resolve) => mail.#server.listen(0, '127.0.0.1', resolve));
    mail.url = `smtp://127.0.0.1:${mail.#server.address().port}`;
    return mail;
  }

  stop() {
    return new Promise((resolve) => this.#server.close(resolve));
  }

  /** The path of the link in the next mail to this address whose subject has these words. */
  async link(to, subject) {
    for (;;) {
      const at = this.#mail.findIndex((mail) => mail.includes(`To: ${to}`) && subject.test(mail));
      if (at >= 0) {
        const [mail] = this.#mail.splice(at, 1);
        return /\/\.portcullis\/link\/[\w-]{43}/.exec(mail.replaceAll('=\r\n', ''))[0];
      }
      await new Promise((resolve) => this.#waiting.push(resolve));
    }
  }

  #serve(socket) {
    let text = '';
    let data = false;
    socket.on('error', () => {});
    socket.write('220 mail.test\r\n');
    socket.on('data', (chunk) => {
      text += chunk;
      for (;;) {
        const end = data ? text.indexOf('\r\n.\r\n') : text.indexOf('\r\n');
        if (end < 0) {
          return;
        }
        const piece = text.slice(0, end);
        text = text.slice(end + (data ? 5 : 2));
        if (data) {
          this.#mail.push(piece);
          this.#waiting.splice(0).forEach((resolve) => resolve());
          data = false;
          socket.write('250 OK\r\n');
        } else if (piece === 'DATA') {
          data = true;
          socket.write('354 go on\r\n');
        } else if (piece === 'QUIT') {
          socket.end('221 bye\r\n');
        } else {
          socket.write('250 OK\r\n');
        }
      }
    });
  }
}
