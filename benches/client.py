"""A small HTTPS client: asks, checks answers, holds connections open. Not for load: that is `load.py`."""

import base64
import contextlib
import json
import os
import socket
import ssl
import time

from lab import BODY
from servers import GIVE_UP, Failure, wait_until

SETTLE = 0.5  # seconds until memory is read
PIECE = 1 << 20
MASKED_HI = b"\x81\x82\0\0\0\0hi"  # WebSocket frames (RFC 6455)
OK = b"\x81\x02ok"


class Client:
    """Of one server, with its cookie."""

    def __init__(self, server, authority):
        self.server = server
        self.tls = ssl.create_default_context(cafile=authority)

    def connect(self, alpn="http/1.1", session=None):
        self.tls.set_alpn_protocols([alpn])
        plain = socket.create_connection(("127.0.0.1", self.server.port), timeout=GIVE_UP)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.tls.wrap_socket(plain, server_hostname="localhost", session=session)

    def send(self, connection, path, headers=(), cookie=True):
        lines = [f"GET {path} HTTP/1.1", f"Host: localhost:{self.server.port}", "Accept: */*", *headers]
        if cookie and self.server.tokens:
            lines.append(f"Authorization: Bearer {next(self.server.tokens)}")
        elif cookie and self.server.cookie:
            lines.append(f"Cookie: {self.server.cookie}")
        connection.sendall("\r\n".join([*lines, "", ""]).encode())

    def ask(self, connection, path="/", cookie=True):
        """Sends a request and reads the whole answer; returns status and body."""
        self.send(connection, path, cookie=cookie)
        status, length, body = head(connection)
        while len(body) < length:
            body += receive(connection)
        return status, body

    def served(self):
        """Whether a request on a new connection is answered with 200."""
        with self.connect() as connection:
            return self.ask(connection)[0] == 200

    def wait(self, pause=0.02):
        """Until the server serves."""
        wait_until(lambda: self.server.must_run() or self.served(), f"{self.server.name} does not serve", pause)

    def check(self):
        """The right answer, TLS 1.3, HTTP/2 on offer; and where there is a check, nothing for a stranger."""
        name = self.server.name
        self.wait()
        with self.connect() as connection:
            status, body = self.ask(connection)
            if status != 200 or len(body) != BODY or not json.loads(body):
                raise Failure(f"{name} answered {status} with {len(body)} bytes, not 200 with {BODY}")
            if connection.version() != "TLSv1.3":
                raise Failure(f"{name} speaks {connection.version()}")
        with self.connect() as connection:
            if self.server.cookie and self.ask(connection, cookie=False)[0] == 200:
                raise Failure(f"{name} lets strangers in")
        with self.connect(alpn="h2") as connection:
            if connection.selected_alpn_protocol() != "h2":
                raise Failure(f"{name} does not offer HTTP/2")

    def resumes(self):
        """Whether a second connection takes up the session of the first."""
        with self.connect() as connection:
            # The tickets of TLS 1.3 come after the handshake.
            self.ask(connection)
            session = connection.session
        with self.connect(session=session) as connection:
            return connection.session_reused

    def download(self, path, size):
        """Reads a long body; returns by how much the server's memory grew at most."""
        buffer, got = bytearray(PIECE), 0
        with self.connect() as connection:
            before = peak = self.server.memory()
            self.send(connection, path)
            status, length, body = head(connection)
            if status != 200 or length != size:
                raise Failure(f"{self.server.name} answered {status} with {length} bytes, not 200 with {size}")
            got, due = len(body), 0
            while got < size:
                received = connection.recv_into(buffer)
                if not received:
                    raise Failure(f"{self.server.name} ended a body of {size} bytes after {got}")
                got += received
                if got >= due:
                    peak, due = max(peak, self.server.memory()), got + 16 * PIECE
        return peak - before

    def idle_cost(self, count, open_one, still_open):
        """Bytes of memory for each of `count` connections that are used once, then left open."""
        for connection in [open_one() for _ in range(50)]:
            connection.close()
        time.sleep(SETTLE)
        before = self.server.memory()
        connections = [open_one() for _ in range(count)]
        time.sleep(SETTLE)
        after = self.server.memory()
        for connection in connections:
            # One that the server has closed meanwhile would count as free of charge.
            if not still_open(connection):
                raise Failure(f"{self.server.name} closed an idle connection")
            connection.close()
        return (after - before) / count

    def idle_connection(self):
        connection = self.connect()
        # At once: a server need not wait long for a connection's first request.
        if self.ask(connection)[0] != 200:
            raise Failure(f"{self.server.name} refused a connection")
        return connection

    def websocket(self):
        connection = self.connect()
        key = base64.b64encode(os.urandom(16)).decode()
        upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        self.send(connection, "/websocket", [*upgrade, f"Sec-WebSocket-Key: {key}", f"Origin: {self.server.url}"])
        status, _, rest = head(connection)
        if status != 101 or rest or not websocket_answers(connection):
            raise Failure(f"{self.server.name} answered {status} to a WebSocket")
        return connection


def head(connection):
    """Reads the head of an answer; returns status, length of the body, and what came of it already."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += receive(connection)
    lines, _, body = answer.partition(b"\r\n\r\n")
    lines = lines.decode("latin-1").lower().split("\r\n")
    # Only a refusal comes without a length, and its status is all that counts.
    length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
    return int(lines[0].split()[1]), length, body


def receive(connection):
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the connection ended early")
    return data


def is_open(connection):
    connection.settimeout(0)
    with contextlib.suppress(ssl.SSLWantReadError):
        return bool(connection.recv(1))
    return True


def websocket_answers(connection):
    connection.sendall(MASKED_HI)
    answer = b""
    while len(answer) < len(OK):
        answer += receive(connection)
    return answer == OK
