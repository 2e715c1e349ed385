"""How gateways bear a PostgreSQL that fails, and how little they ask of one when nothing happens."""

import asyncio
import json
import os
import signal
import time
import urllib.error
import urllib.request

from fleet_client import User
from fleet_lab import logs_statements, ready, statements
from servers import family, run, tool, wait_until

IDLE, LOCKED, READ_ONLY, HUNG = 20.0, 14.0, 5.0, 5.0  # seconds
CONNECTIONS = 8  # of each gateway
TOLD, BACK = 0.05, 1.0  # seconds until the 503, and until all is well again


def sql(scene, statement):
    return run(tool("psql"), "-XqAt", scene.database, "-c", statement).strip()


def said(scene, word):
    """How often the gateways' logs have it."""
    return sum((gateway.folder / "output").read_text(errors="replace").count(word) for gateway in scene.fleet.gateways)


async def state(scene, number=0):
    port = scene.fleet.admin_ports[number]

    def asked():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    return await asyncio.to_thread(asked)


async def database(scene):
    postgres = scene.server("postgres")
    users = scene.users(30)
    await idle(scene)
    for user, port in zip(users, scene.ports * 10):
        await user.ask(port)
    await locked(scene, users)
    await logins(scene)
    await read_only(scene, users)
    await full(scene, users)
    await crowded(scene, users)
    await hung(scene, users, postgres)
    await down(scene, users, postgres)
    clocks = {(await state(scene, number))["clocks"] for number in range(3)}
    scene.must(clocks == {"ok"}, f"clocks of one machine: {', '.join(clocks)}")


async def idle(scene):
    """The statements of three gateways with nothing to do, and nobody who asks whether they are ready."""
    postgres, balancer = scene.server("postgres"), scene.server("haproxy")
    balancer.stop()
    logs_statements(scene.database)
    await asyncio.sleep(5)
    before = statements(postgres)
    await asyncio.sleep(IDLE)
    rate = (statements(postgres) - before) / IDLE / 3
    sql(scene, "ALTER SYSTEM RESET log_statement")
    sql(scene, "SELECT pg_reload_conf()")
    balancer.start()
    scene.must(rate <= 2.0, f"{rate:.2f} statements a second of a gateway with nothing to do")


async def locked(scene, users):
    """`sessions` is locked, and a crowd comes with cookies that nobody knows."""
    lock = await asyncio.create_subprocess_exec(
        tool("psql"), "-Xq", scene.database, "-c", f"BEGIN; LOCK TABLE sessions; SELECT pg_sleep({LOCKED}); ROLLBACK",
        stdout=asyncio.subprocess.DEVNULL,
    )
    await asyncio.sleep(0.5)
    ends, answers, most = time.monotonic() + LOCKED - 1.0, [], 0

    async def stranger(number, port):
        while time.monotonic() < ends:
            await User(scene.world, f"x{number}x".ljust(43, "A"), "").ask(port)

    async def signed_in(user, port):
        while time.monotonic() < ends:
            answers.append((await user.ask(port)).lets_in)
            await asyncio.sleep(0.1)

    crowd = [stranger(number, scene.ports[number % 3]) for number in range(24)]
    crowd += [signed_in(user, port) for user, port in zip(users, scene.ports * 10)]
    crowd = asyncio.gather(*crowd, return_exceptions=True)
    while time.monotonic() < ends:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'portcullis'"
        most = max(most, int(await asyncio.to_thread(sql, scene, query)))
        await asyncio.sleep(0.2)
    await crowd
    await lock.wait()
    scene.must(most <= 3 * CONNECTIONS, f"{most} backends of three gateways of {CONNECTIONS} while sessions are locked")
    scene.must(all(answers), f"{sum(answers)} of {len(answers)} requests of signed-in users were served meanwhile")


async def logins(scene):
    lock = await asyncio.create_subprocess_exec(
        tool("psql"), "-Xq", scene.database, "-c", "BEGIN; LOCK TABLE users; SELECT pg_sleep(6); ROLLBACK",
        stdout=asyncio.subprocess.DEVNULL,
    )
    began, seen = time.monotonic(), {}
    while time.monotonic() - began < 5 and seen.get("logins", "ok") == "ok":
        await asyncio.sleep(0.25)
        seen = await state(scene)
    took = time.monotonic() - began
    scene.must("users" in seen["logins"] and seen["ready"], f"`{seen['logins']}` in /ready after {took:.1f} s, ready")
    await lock.wait()


async def read_only(scene, users):
    before = said(scene, " WARN ") + said(scene, " ERROR ")
    sql(scene, "ALTER SYSTEM SET default_transaction_read_only = on")
    sql(scene, "SELECT pg_reload_conf()")
    ends, answers = time.monotonic() + READ_ONLY, []
    while time.monotonic() < ends:
        for user, port in zip(users, scene.ports * 10):
            answers.append((await user.ask(port)).lets_in)
    sql(scene, "ALTER SYSTEM RESET default_transaction_read_only")
    sql(scene, "SELECT pg_reload_conf()")
    lines = said(scene, " WARN ") + said(scene, " ERROR ") - before
    scene.must(all(answers) and lines <= 9, f"{lines} lines in the log of three gateways, read-only for {READ_ONLY:.0f} s")


async def full(scene, users):
    """PostgreSQL has no room for a row more."""
    sql(scene, "CREATE FUNCTION no_room() RETURNS trigger AS $$ BEGIN RAISE disk_full; END $$ LANGUAGE plpgsql")
    tables = ["sessions", "pending_logins", "users"]
    for table in tables:
        sql(scene, f"CREATE TRIGGER no_room BEFORE INSERT ON {table} EXECUTE FUNCTION no_room()")
    served = [(await user.ask(port)).lets_in for user, port in zip(users * 3, scene.ports * 30)]
    for table in tables:
        sql(scene, f"DROP TRIGGER no_room ON {table}")
    scene.must(all(served), f"no room: {sum(served)} of {len(served)} requests of signed-in users were served meanwhile")


async def crowded(scene, users):
    """Others have taken all connections of the server."""
    held = []
    while len(held) < 250:
        other = await asyncio.create_subprocess_exec(
            tool("psql"), "-Xq", scene.database, "-c", "SELECT pg_sleep(60)",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        held.append(other)
        if len(held) % 25 == 0:
            await asyncio.sleep(0.5)
            if any(one.returncode is not None for one in held):
                break
    answers = [await user.ask(port) for user, port in zip(users * 3, scene.ports * 30)]
    for other in held:
        if other.returncode is None:
            other.kill()
        await other.wait()
    served = sum(answer.lets_in for answer in answers)
    out = sum(answer.is_logged_out for answer in answers)
    scene.must(not out, f"no connection left: {served} of {len(answers)} requests were served, none was sent to the login")


async def hung(scene, users, postgres):
    """Every process of the server is stopped, and goes on five seconds later."""
    processes = family(postgres.process.pid)
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    began, told, wrong = time.monotonic(), [], 0
    while time.monotonic() - began < HUNG:
        for user, port in zip(users, scene.ports * 10):
            asked = time.monotonic()
            answer = await user.ask(port)
            told.append(time.monotonic() - asked)
            # Whoever was seen a moment ago may be let in for a second.
            wrong += answer.is_logged_out or (answer.lets_in and asked - began > 2)
    for pid in processes:
        os.kill(pid, signal.SIGCONT)
    back = time.monotonic()
    while not all([(await user.ask(port)).lets_in for user, port in zip(users, scene.ports * 10)]):
        await asyncio.sleep(0.02)
    back, told = time.monotonic() - back, sorted(told)
    # What comes next finds everybody well.
    await asyncio.sleep(3)
    scene.must(
        not wrong and back <= 2 * BACK,
        f"hung: {len(told)} answers, p50 {told[len(told) // 2] * 1e3:.1f} ms, most {told[-1]:.2f} s; back after {back:.2f} s",
    )


async def down(scene, users, postgres):
    """Killed, as the power is cut; and started again."""
    before = said(scene, "the database is away")
    postgres.signal(signal.SIGQUIT)
    postgres.process.wait()
    began = time.monotonic()
    while any([(await user.ask(port)).status != 503 for user, port in zip(users[:3], scene.ports)]):
        await asyncio.sleep(0.02)
    noticed, times = time.monotonic() - began, []
    for user, port in zip(users * 10, scene.ports * 100):
        asked = time.monotonic()
        answer = await user.ask(port)
        times.append(time.monotonic() - asked)
        scene.broken += ["let in without a database"] if answer.lets_in else []
    times.sort()
    p99 = times[int(len(times) * 0.99)]
    scene.must(p99 <= TOLD, f"503 within {p99 * 1000:.1f} ms (p99 of {len(times)}), the first after {noticed:.2f} s")
    lines = said(scene, "the database is away") - before
    scene.must(lines == 3, f"{lines} lines of three gateways that the database is away")
    postgres.start()
    wait_until(lambda: ready(scene.database), "PostgreSQL does not start", 0.02)
    began = time.monotonic()
    while not all([(await user.ask(port)).lets_in for user, port in zip(users, scene.ports * 10)]):
        await asyncio.sleep(0.02)
    back = time.monotonic() - began
    scene.must(back <= BACK, f"every user is in {back:.2f} s after PostgreSQL is back")
