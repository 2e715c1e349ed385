#!/usr/bin/env python3
"""The measurements of compare.sh that need more than a shell. Standard library only.

    measure.py ports COUNT                       free loopback ports
    measure.py check URL                         one request must be answered 200 with 1 KiB of JSON
    measure.py start URL TIMES -- COMMAND...     milliseconds from exec to the first served request
    measure.py idle URL COUNT PID                bytes of memory per idle connection
    measure.py summary FILE                      the table

AUTHORITY names the authority's certificate, BENCH_COOKIE_FILE a file with the Cookie header to send, if any.
"""

import json
import os
import random
import socket
import ssl
import statistics
import subprocess
import sys
import time
import urllib.parse

TICKS = os.sysconf("SC_CLK_TCK")
BODY = 1024
GIVE_UP = 20  # seconds


def tls_context():
    return ssl.create_default_context(cafile=os.environ["AUTHORITY"])


class Target:
    """A server on loopback, and the one request that is sent to it again and again."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname, parts.port
        cookie = ""
        if path := os.environ.get("BENCH_COOKIE_FILE"):
            with open(path, encoding="ascii") as file:
                cookie = f"Cookie: {file.readline().strip()}\r\n"
        self.request = f"GET / HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: */*\r\n{cookie}\r\n".encode()
        self.tls = tls_context()

    def connect(self):
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=GIVE_UP)
        return self.tls.wrap_socket(plain, server_hostname=self.host)

    def ask(self, connection):
        """Sends the request, reads the whole answer, returns status and body."""
        connection.sendall(self.request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += receive(connection)
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        # Only a refusal comes without a length, and its status is all that counts.
        length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
        while len(body) < length:
            body += receive(connection)
        return int(lines[0].split()[1]), body


def receive(connection):
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the connection ended early")
    return data


def ports(count):
    """Below the range from which outgoing connections take theirs."""
    found = []
    for port in random.sample(range(20000, 30000), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise SystemExit("measure: no free ports")


def check(url):
    """Waits for the server, then insists on the right answer; prints the protocol and the cipher."""
    target = Target(url)
    deadline = time.monotonic() + GIVE_UP
    while True:
        try:
            connection = target.connect()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"measure: {url} does not answer: {error}") from error
            time.sleep(0.02)
    with connection:
        status, body = target.ask(connection)
        if status != 200 or len(body) != BODY:
            raise SystemExit(f"measure: {url} answered {status} with {len(body)} bytes, not 200 with {BODY}")
        json.loads(body)
        return f"{connection.version()} {connection.cipher()[0]}"


def start(url, times, command):
    """Includes one TLS handshake of this script's, the same for every server."""
    target = Target(url)
    for _ in range(times):
        began = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                yield first_answer(target, server, began)
            finally:
                server.terminate()
                try:
                    server.wait(GIVE_UP)
                except subprocess.TimeoutExpired:
                    server.kill()


def first_answer(target, server, began):
    while True:
        try:
            with target.connect() as connection:
                status, _ = target.ask(connection)
            if status == 200:
                return (time.monotonic() - began) * 1000
        except OSError:
            pass
        if server.poll() is not None:
            raise SystemExit(f"measure: the server ended with {server.returncode}")
        if time.monotonic() > began + GIVE_UP:
            raise SystemExit("measure: the server does not come up")
        time.sleep(0.0005)


def memory(pid):
    """Resident bytes of a process and its children."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        children = file.read().split()
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        resident = next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))
    return resident * 1024 + sum(memory(child) for child in children)


def idle(url, count, pid):
    """Every connection is used once, then left open."""
    target = Target(url)

    def open_some(number):
        connections = []
        for _ in range(number):
            connections.append(target.connect())
            # At once: a server need not wait long for a connection's first request.
            if target.ask(connections[-1])[0] != 200:
                raise SystemExit("measure: a connection was refused")
        return connections

    for connection in open_some(50):
        connection.close()
    time.sleep(1)
    before = memory(pid)
    connections = open_some(count)
    time.sleep(1)
    after = memory(pid)
    for connection in connections:
        # One that the server has closed meanwhile would count as free of charge.
        connection.settimeout(0)
        try:
            if not connection.recv(1):
                raise SystemExit("measure: the server closed an idle connection")
        except ssl.SSLWantReadError:
            pass
        connection.close()
    return (after - before) / count


class Figures:
    """The lines that compare.sh wrote: what, who, numbers."""

    def __init__(self, path):
        with open(path, encoding="ascii") as file:
            self.lines = [line.split() for line in file]

    def of(self, what, who):
        return [[float(number) for number in line[2:]] for line in self.lines if line[:2] == [what, who]]

    def first(self, what, who):
        return [numbers[0] for numbers in self.of(what, who)]

    def load(self, who):
        """CPU microseconds a request, requests a second, p99 in milliseconds: one list each, by round."""
        rounds = []
        for requests, micros, p99, size, failed, ticks in self.of("load", who):
            if failed or size < requests * BODY:
                raise SystemExit(f"summary: {who} failed {failed:.0f} requests or answered too little")
            rounds.append((ticks / TICKS * 1e6 / requests, requests / micros * 1e6, p99 / 1000))
        return list(zip(*rounds))


def summary(path):
    figures = Figures(path)
    rows = [("S10 exec to first request, ms", "start", "< 100"), ("S5 memory per idle connection, KiB", "idle", "<= 16")]
    peer, ours = figures.load("nginx"), figures.load("portcullis")
    names = [("S1 CPU a request, µs", "<= 0.80 x"), ("S1 requests a second", ""), ("S1 p99, ms", "")]
    print(f"{'':36}{'portcullis':>12}{'nginx':>12}{'ratio':>9}  goal")
    for index, (name, goal) in enumerate(names):
        line(name, ours[index] if ours else [], peer[index], goal)
    for name, what, goal in rows:
        line(name, figures.first(what, "portcullis"), figures.first(what, "nginx"), goal)
    for size in figures.first("size", "portcullis"):
        print(f"{'S10 stripped binary, MB':36}{size / 1e6:12.1f}{'':12}{'':9}  < 25")
    print(f"S1: medians of {len(peer[0])} rounds; the ratio is the median of the rounds' ratios.")
    for who, rounds in [("portcullis", ours), ("nginx", peer)]:
        if rounds:
            span = ", ".join(f"{name[3:]} {min(r):.2f} to {max(r):.2f}" for (name, _), r in zip(names, rounds))
            print(f"  {who}: {span}")


def line(name, ours, peer, goal):
    mine = f"{statistics.median(ours):12.2f}" if ours else f"{'-':>12}"
    ratio = f"{statistics.median(a / b for a, b in zip(ours, peer)):9.2f}" if ours else f"{'-':>9}"
    print(f"{name:36}{mine}{statistics.median(peer):12.2f}{ratio}  {goal}")


def main():
    match sys.argv[1:]:
        case ["ports", count]:
            print(*ports(int(count)))
        case ["check", url]:
            print(check(url))
        case ["start", url, times, "--", *command]:
            for millis in start(url, int(times), command):
                print(f"{millis:.2f}")
        case ["idle", url, count, pid]:
            print(f"{idle(url, int(count), int(pid)) / 1024:.2f}")
        case ["summary", path]:
            summary(path)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
