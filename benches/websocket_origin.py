"""The portal's side of a WebSocket: accepts everybody and answers whatever comes with the frame "ok"."""

import asyncio
import base64
import contextlib
import hashlib
import threading

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455
OK = b"\x81\x02ok"


async def answer(reader, writer):
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        request = await reader.readuntil(b"\r\n\r\n")
        key = next(
            line[18:].strip() for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")
        )
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        head = (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "
        )
        writer.write(head + accept + b"\r\n\r\n")
        while await reader.read(4096):
            writer.write(OK)
    writer.close()


@contextlib.contextmanager
def websocket_origin(port):
    """Runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", port, backlog=1024))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
