"""A way to Redis that can be spoilt: slow, cut, swallowing, refusing. Runs on a thread of its own."""

import asyncio
import threading

SLOW = 2.0  # seconds that everything takes
CUT = 0.05  # seconds that a connection lives


class Chaos:
    """Passes everything between `port` and a server until told otherwise; `way` is a name of `WAYS`."""

    WAYS = ("open", "slow", "cut", "half-open", "refusing")

    def __init__(self, port, target):
        self.port, self.target, self.way = port, target, "open"
        self.loop, self.writers = asyncio.new_event_loop(), set()
        threading.Thread(target=self.run, daemon=True).start()
        self.set("open")

    def run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def set(self, way):
        asyncio.run_coroutine_threadsafe(self.become(way), self.loop).result()

    async def become(self, way):
        self.way = way
        # What is open goes on in the new way, but for what the way closes.
        if way in ("cut", "refusing", "open"):
            self.close_all()
        listening = getattr(self, "server", None)
        if way == "refusing" and listening:
            listening.close()
            self.server = None
        elif listening is None and way != "refusing":
            self.server = await asyncio.start_server(self.pass_on, "127.0.0.1", self.port)

    def close_all(self):
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def pass_on(self, reader, writer):
        self.writers.add(writer)
        try:
            there = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return writer.transport.abort()
        self.writers.add(there[1])
        if self.way == "cut":
            self.loop.call_later(CUT, writer.transport.abort)
        await asyncio.gather(self.pump(reader, there[1]), self.pump(there[0], writer), return_exceptions=True)
        for end in (writer, there[1]):
            self.writers.discard(end)
            end.transport.abort()

    async def pump(self, reader, writer):
        try:
            while data := await reader.read(1 << 16):
                if self.way == "slow":
                    await asyncio.sleep(SLOW)
                # Swallowed: the peer thinks that it was sent.
                if self.way != "half-open":
                    writer.write(data)
        finally:
            writer.transport.abort()
