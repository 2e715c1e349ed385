"""What gateways share: the end of everybody's sessions, the counts of failures, the use of a code, the time."""

import asyncio
import secrets
import threading
import time

import login
from fleet_database import state
from servers import run

ENDED = 1.0  # seconds until nobody is in
TRIES, FREE = 15, 5  # wrong passwords that are sent, and those that are checked at once
AT_ONCE = 24  # posts of one code


async def shared(scene):
    await everybody(scene)
    await asyncio.to_thread(budgets, scene)
    await asyncio.to_thread(one_code, scene)
    clocks = [(await state(scene, number))["clocks"] for number in range(3)]
    scene.must(set(clocks) == {"ok"}, f"clocks of one machine: {', '.join(clocks)}")


async def everybody(scene):
    """`session revoke --all` at one gateway while everything is open at the others."""
    users, ends = scene.users(60), []
    for number, user in enumerate(users):
        ends.append(asyncio.ensure_future(await user.events(scene.ports[number % 3])))
    began = time.monotonic()
    said = await asyncio.to_thread(scene.fleet.cli, "session", "revoke", "--all", "--yes")
    committed = time.monotonic()
    async with asyncio.timeout(20):
        last = max(await asyncio.gather(*ends))
    still = sum([(await user.ask(port)).lets_in for user in users for port in scene.ports])
    scene.must(
        last - committed <= ENDED and not still,
        f"everybody is out: {len(ends)} streams cut {max(0, last - committed) * 1e3:.0f} ms after the command, which took "
        f"{committed - began:.2f} s ({said.split('.')[0].strip()}); let in after that: {still}",
    )


def budgets(scene):
    """Wrong passwords for one account through HAProxy, which sends each connection to the next gateway."""
    checked, authority = 0, str(scene.lab.authority)
    for _ in range(TRIES):
        browser = login.Browser(scene.fleet.url, authority)
        page = browser.open("/.portcullis/login")
        fields = {**page.hidden, "email": "nobody@example.com", "password": secrets.token_urlsafe(16)}
        checked += browser.ask("POST", page.action, fields)[0] != 429
    scene.must(checked <= FREE, f"{checked} of {TRIES} wrong passwords for one account were checked by three gateways")


def one_code(scene):
    """One right code, sent many times at once at three gateways; then the next one."""
    email, password, authority = "shared@example.com", secrets.token_urlsafe(24), str(scene.lab.authority)
    configuration = scene.fleet.configurations[0]
    run(scene.fleet.binary, "user", "add", email, "--password-stdin", "--config", configuration, text=password)
    key = login.log_in(scene.fleet.url, email, password, authority).key
    time.sleep(60)
    first = login.Browser(scene.fleet.url, authority)
    first.submit(first.open("/.portcullis/login"), "/.portcullis/code", email=email, password=password)
    page = first.open("/.portcullis/code")
    fields, answers, gate = {**page.hidden, "code": login.totp(key, time.time())}, [], threading.Barrier(AT_ONCE)

    def post():
        browser = login.Browser(scene.fleet.url, authority)
        browser.cookies = dict(first.cookies)
        browser.connection.connect()
        gate.wait()
        browser.ask("POST", page.action, fields)
        answers.append(login.cookie_name(scene.fleet.url) in browser.cookies)

    posts = [threading.Thread(target=post) for _ in range(AT_ONCE)]
    for thread in posts:
        thread.start()
    for thread in posts:
        thread.join()
    time.sleep(60)
    login.log_in_again(scene.fleet.url, email, password, key, authority)
    scene.must(sum(answers) == 1, f"{sum(answers)} of {AT_ONCE} posts of one code made a session, and the next code was right")
