"""How gateways bear a Redis that fails: who is let in, what users are told and how soon, and when all is well again."""

import asyncio
import random
import signal
import time

from fleet_client import User
from fleet_lab import redis_cli

LASTS = 5.0  # seconds, of each trouble
TRUSTED = 1.1  # seconds for which a session that was just seen may be let in, and what it takes to say so
EACH = 0.05  # seconds between two requests of a user
TOLD, BACK = 0.05, 1.0  # seconds until the 503, and until all is well again


def troubles(redis):
    """By name: what begins it, and what ends it."""
    server, chaos = redis.servers[0], redis.chaos

    def cli(*commands):
        return lambda: [redis_cli(server.port, *command) for command in commands]

    ways = {way: (lambda way=way: chaos.set(way), lambda: chaos.set("open")) for way in chaos.WAYS if way != "open"}
    secret = ("-a", "other", "--no-auth-warning")
    return ways | {
        "hung": (lambda: server.signal(signal.SIGSTOP), lambda: server.signal(signal.SIGCONT)),
        "READONLY": (cli(("replicaof", "127.0.0.1", "1")), cli(("replicaof", "no", "one"))),
        "wrong password": (
            cli(("config", "set", "requirepass", "other"), (*secret, "client", "kill", "type", "normal")),
            cli((*secret, "config", "set", "requirepass", "")),
        ),
        # Comes back empty, so it is the last.
        "killed": (server.kill, server.start),
    }


class Watch:
    """What users, those whose sessions have ended and strangers are answered while a trouble lasts."""

    def __init__(self, scene, users, ended, trusted):
        """For `trusted` seconds users may be let in."""
        self.scene, self.trusted, self.began = scene, trusted, time.monotonic()
        self.told, self.passes, self.cleared, self.wrong = [], 0, 0, []
        strangers = [User(scene.world, "", "") for _ in range(6)]
        self.tasks = [asyncio.ensure_future(self.work(user, port)) for user, port in zip(users, self.ports())]
        self.tasks += [asyncio.ensure_future(self.intrude(user, port)) for user, port in zip([*ended, *strangers], self.ports())]

    def ports(self):
        while True:
            yield from self.scene.ports

    async def asked(self, user, port):
        """The answer, and how long it took."""
        began = time.monotonic()
        try:
            return await user.ask(port), time.monotonic() - began
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.wrong.append(repr(error))
            user.close()
            return None, 0.0

    async def work(self, user, port):
        await asyncio.sleep(random.random() * EACH)
        while True:
            answer, took = await self.asked(user, port)
            if answer is not None:
                self.note(answer, took)
            await asyncio.sleep(EACH)

    def note(self, answer, took):
        since = time.monotonic() - took - self.began
        self.cleared += f"{self.scene.world.cookie}=".lower() in answer.fields.get("set-cookie", "")
        if answer.status == 503 and "retry-after" in answer.fields:
            self.told.append(took)
        elif not (answer.lets_in and since < self.trusted):
            self.wrong.append(f"{answer.status} after {since:.2f} s")

    async def intrude(self, user, port):
        while True:
            answer, _ = await self.asked(user, port)
            self.passes += answer is not None and answer.lets_in
            await asyncio.sleep(EACH)

    async def stop(self):
        for task in self.tasks:
            task.cancel()
        for ended in await asyncio.gather(*self.tasks, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError):
                raise ended


async def outages(scene, quantiles, log_out):
    users = scene.users(40)
    working, ended = users[:30], users[30:]
    for user in ended:
        await log_out(scene, user)
    for name, (begin, end) in troubles(scene.redis).items():
        for user in working:
            await settled(scene, user)
        await asyncio.to_thread(begin)
        # Between two cuts Redis can be asked.
        watch = Watch(scene, working, ended, LASTS if name == "cut" else TRUSTED)
        await asyncio.sleep(LASTS)
        await watch.stop()
        for user in working:
            user.close()
        await asyncio.to_thread(end)
        ended_at = time.monotonic()
        gone = name == "killed"
        await asyncio.gather(*(well(user, port, gone) for user, port in zip(working, watch.ports())))
        back = time.monotonic() - ended_at
        text, p99, _ = quantiles(watch.told)
        wrong = f", wrong {len(watch.wrong)}: {watch.wrong[:3]}" if watch.wrong else ""
        holds = not (watch.passes or watch.cleared or watch.wrong) and p99 <= TOLD and back <= BACK
        scene.must(
            holds,
            f"{name:14} {len(watch.told):5} x 503 after {text}; let in {watch.passes}, "
            f"cookies cleared {watch.cleared}, back after {back:.2f} s{wrong}",
        )


async def settled(scene, user):
    """Every gateway lets the user in."""
    for port in scene.ports:
        await well(user, port)


async def well(user, port, gone=False):
    """Until the user is let in, or sent to the login where the session is gone."""
    while True:
        try:
            answer = await user.ask(port)
            if answer.lets_in or (gone and answer.is_logged_out):
                return
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            user.close()
        await asyncio.sleep(0.02)
