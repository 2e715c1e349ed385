"""The portal behind a fleet: answers pages with who asked, streams events, echoes WebSockets, takes uploads.

    fleet_portal.py PORT
"""

import asyncio
import base64
import contextlib
import hashlib
import sys

TICK = 1.0  # seconds between two events


async def serve(reader, writer):
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while await answer(reader, writer):
            pass
    writer.close()


async def answer(reader, writer):
    """One request. False when the connection is used up."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    path = lines[0].split()[1]
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:]) if name}
    await reader.readexactly(int(fields.get("content-length", 0)))
    if fields.get("upgrade", "").lower() == "websocket":
        digest = hashlib.sha1(fields["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
        )
        while data := await reader.read(65536):
            writer.write(data)
        return False
    if path == "/events":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"data: tick\n\n")
            await writer.drain()
            await asyncio.sleep(TICK)
        return False
    body = fields.get("remote-email", "nobody").encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    return True


async def main(port):
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
