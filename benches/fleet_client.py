"""What users of a fleet do, many at once: pages, event streams over HTTP/1.1 and HTTP/2, WebSockets, logging out."""

import asyncio
import contextlib
import ssl
import time
import urllib.parse

from attack import frame, head
from login import Page, cookie_name
from servers import Failure

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE = 20.0  # seconds
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7  # frame types (RFC 9113)


class World:
    """How a fleet is reached: each gateway by itself, under the name that HAProxy serves."""

    def __init__(self, url, authority):
        self.authority = urllib.parse.urlsplit(url).netloc
        self.cookie = cookie_name(url)
        self.entrance = int(self.authority.rsplit(":", 1)[1])
        self.tls = {}
        for protocol in ("http/1.1", "h2"):
            context = ssl.create_default_context(cafile=authority)
            context.set_alpn_protocols([protocol])
            self.tls[protocol] = context

    async def connect(self, port, protocol="http/1.1"):
        async with asyncio.timeout(PATIENCE):
            return await asyncio.open_connection(
                "127.0.0.1", port, ssl=self.tls[protocol], server_hostname="localhost"
            )


class Answer:
    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body

    @property
    def lets_in(self):
        return 200 <= self.status < 300

    @property
    def is_logged_out(self):
        """Sent to the login page, or told that there is no session."""
        return self.status in (302, 303, 401)


class User:
    """One session. Keeps a connection to each gateway that it has talked to."""

    def __init__(self, world, token, email):
        self.world, self.email = world, email
        self.cookie = f"{world.cookie}={token}"
        self.kept = {}

    def request(self, method, path, more=(), body=""):
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.world.authority}",
            f"Cookie: {self.cookie}",
            f"Origin: https://{self.world.authority}",
            "Sec-Fetch-Site: same-origin",
            *more,
        ]
        if body:
            lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", body]).encode()

    async def ask(self, port, path="/", method="GET", fields=None, more=()):
        """On a connection that is kept; on a new one where the old has ended between two requests."""
        request = self.request(method, path, more, urllib.parse.urlencode(fields or {}))
        if kept := self.kept.pop(port, None):
            reader, writer = kept
            try:
                return await self.exchange(port, reader, writer, request)
            except asyncio.IncompleteReadError as error:
                # The server has closed it before it saw the request.
                if error.partial or method != "GET":
                    raise
            except ConnectionError:
                if method != "GET":
                    raise
        return await self.exchange(port, *await self.world.connect(port), request)

    async def exchange(self, port, reader, writer, request):
        try:
            writer.write(request)
            async with asyncio.timeout(PATIENCE):
                answer, usable = await read_answer(reader)
        except BaseException:
            writer.close()
            raise
        if usable:
            self.kept[port] = reader, writer
        else:
            writer.close()
        return answer

    async def log_out(self, port):
        """Returns when the button was pressed, and the answer."""
        page = await self.ask(port, "/.portcullis/account", more=["Accept: text/html", "Sec-Fetch-Mode: navigate"])
        form = Page(page.body.decode(), "/.portcullis/logout")
        if form.action is None:
            raise Failure(f"no account page: {page.status} {page.body[:200]}")
        began = time.monotonic()
        return began, await self.ask(port, form.action, "POST", form.hidden)

    def close(self):
        for _, writer in self.kept.values():
            writer.close()
        self.kept.clear()

    # What stays open; each returns what has to be awaited for its end, which is when it returns.

    async def events(self, port):
        reader, writer = await self.world.connect(port)
        writer.write(self.request("GET", "/events", ["Accept: text/event-stream"]))
        await expect(reader, b"HTTP/1.1 200 ", b"data: tick")
        return until_end(reader, writer)

    async def websocket(self, port):
        reader, writer = await self.world.connect(port)
        upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        writer.write(self.request("GET", "/socket", [*upgrade, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]))
        await expect(reader, b"HTTP/1.1 101 ", b"\r\n\r\n")
        return websocket_end(reader, writer)

    async def stream(self, port):
        """An event stream over HTTP/2."""
        reader, writer = await self.world.connect(port, "h2")
        block = head(self.world.authority, ("cookie", self.cookie), ("accept", "text/event-stream"), path="/events")
        writer.write(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 5, 1, block))
        while (await h2_frame(reader, writer))[0] != DATA:
            pass
        return stream_end(reader, writer)


async def read_answer(reader):
    text = await reader.readuntil(b"\r\n\r\n")
    lines = text.decode("latin-1").lower().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines[1:] if line)
    body = await reader.readexactly(int(fields.get("content-length", 0)))
    return Answer(int(lines[0].split()[1]), fields, body), fields.get("connection") != "close"


async def expect(reader, begin, until):
    async with asyncio.timeout(PATIENCE):
        got = await reader.readuntil(until)
    if not got.startswith(begin):
        raise Failure(f"answered {got[:60]!r}, not {begin!r}")


async def until_end(reader, writer):
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while await reader.read(65536):
            pass
    writer.close()
    return time.monotonic()


async def websocket_end(reader, writer):
    got = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while len(got) < 4:
            data = await reader.read(65536)
            if not data:
                break
            got += data
    ended = time.monotonic()
    writer.close()
    if not (got[:1] == b"\x88" and got[2:4] == b"\x03\xf0"):
        raise Failure(f"a WebSocket ended with {got!r}, not with the close code 1008")
    return ended


async def h2_frame(reader, writer):
    prefix = await reader.readexactly(9)
    payload = await reader.readexactly(int.from_bytes(prefix[:3], "big"))
    kind, flags = prefix[3], prefix[4]
    if kind in (SETTINGS, PING) and not flags & 1:
        writer.write(frame(kind, 1, 0, payload if kind == PING else b""))
    return kind, flags, payload


async def stream_end(reader, writer):
    with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
        while True:
            kind, flags, _ = await h2_frame(reader, writer)
            if kind in (RESET, GOAWAY) or (kind == DATA and flags & 1):
                break
    writer.close()
    return time.monotonic()
