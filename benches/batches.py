"""An exact number of requests on connections that stay open, over HTTP/1.1 or HTTP/2, for counting instructions.

Every connection gets its requests at once, then all answers are read. It is a client of benches, not of the world:
whatever is not the one right answer ends it.
"""

import struct

from client import head, receive
from lab import BODY
from servers import Failure

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8  # frame types (RFC 9113)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
WIDE = (1 << 31) - 1 - 65535


# Whatever the path, the portal answers the same.
PATH = "/api/v1/sims"


class Http1:
    """One request at a time."""

    depth, alpn = 1, "http/1.1"

    def __init__(self, client):
        self.client, self.connection = client, client.connect()

    def send(self):
        self.client.send(self.connection, PATH)

    def read(self):
        status, length, body = head(self.connection)
        while len(body) < length:
            body += receive(self.connection)
        if status != 200 or len(body) != BODY:
            raise Failure(f"answered {status} with {len(body)} bytes")


class Http2:
    """16 streams at a time."""

    depth, alpn = 16, "h2"

    def __init__(self, client):
        self.connection = client.connect(alpn="h2")
        self.next_stream, self.received = 1, b""
        self.first, self.repeated = header_blocks(client.server)
        widest = struct.pack("!HI", 4, (1 << 31) - 1)
        self.connection.sendall(PREFACE + frame(SETTINGS, 0, 0, widest) + frame(WINDOW, 0, 0, struct.pack("!I", WIDE)))

    def send(self):
        frames = b""
        for _ in range(self.depth):
            block = self.first if self.next_stream == 1 else self.repeated
            frames += frame(HEADERS, END_STREAM | END_HEADERS, self.next_stream, block)
            self.next_stream += 2
        self.connection.sendall(frames)

    def read(self):
        """Until every stream has ended, with a body each; the codes of the answers are not looked at."""
        ended, size = 0, 0
        while ended < self.depth:
            kind, flags, stream, payload = self.frame()
            if kind == SETTINGS and not flags & ACK:
                self.connection.sendall(frame(SETTINGS, ACK, 0, b""))
            if kind == PING and not flags & ACK:
                self.connection.sendall(frame(PING, ACK, 0, payload))
            if kind in (RESET, GOAWAY):
                raise Failure(f"was answered with frame type {kind}")
            if kind == DATA:
                size += len(payload)
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                ended += 1
        if size != self.depth * BODY:
            raise Failure(f"answered {self.depth} requests with {size} bytes")
        # What was read is given back, as a browser does.
        self.connection.sendall(frame(WINDOW, 0, 0, struct.pack("!I", size)))

    def frame(self):
        while len(self.received) < 9 or len(self.received) < 9 + self.length():
            self.received += receive(self.connection)
        kind, flags, stream = struct.unpack("!BBI", self.received[3:9])
        end = 9 + self.length()
        payload, self.received = self.received[9:end], self.received[end:]
        return kind, flags, stream, payload

    def length(self):
        return int.from_bytes(self.received[:3], "big")


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + struct.pack("!BBI", kind, flags, stream) + payload


def header_blocks(server):
    """HPACK (RFC 7541) of the one request: in full and to be remembered, then by what was remembered."""
    pseudo = b"\x82\x84\x87"  # GET, /, https
    fields = [(1, f"localhost:{server.port}"), (19, "*/*")]  # :authority, accept
    if server.cookie:
        fields.append((32, server.cookie))
    full = b"".join(bytes([0x40 | name]) + text(value) for name, value in fields)
    newest = 62
    indexed = bytes(0x80 | (newest + age) for age in reversed(range(len(fields))))
    return pseudo + full, pseudo + indexed


def text(value):
    """Without Huffman; short enough for a length of one byte."""
    data = value.encode()
    if len(data) >= 127:
        raise Failure("a header is too long for this small client")
    return bytes([len(data)]) + data


class Batches:
    """`connections` of one protocol, used together."""

    def __init__(self, client, protocol, connections):
        self.connections = [protocol(client) for _ in range(connections)]
        self.size = connections * protocol.depth

    def run(self, times):
        """Returns the number of requests that were answered."""
        for _ in range(times):
            for connection in self.connections:
                connection.send()
            for connection in self.connections:
                connection.read()
        return times * self.size

    def close(self):
        for connection in self.connections:
            connection.connection.close()
