"""A server under test or beside it: started on a core, asked whether it answers rightly, watched and stopped.

What each of them is told to do stands in `lab.py` and `peers.py`.
"""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
GIVE_UP = 20  # seconds
SERVED, LOAD = 0, 1  # the cores


class Failure(Exception):
    """Something that makes the figures worthless."""


class Missing(Exception):
    """A program that this machine does not have."""


class Server:
    """`command` has to stay in the foreground; `cookie` is what a request needs to be let in, or one of `tokens`, in turns."""

    ends_within = GIVE_UP

    def __init__(self, name, command, url, folder, *, core=SERVED, cookie="", version="", environment=None):
        self.name, self.command, self.url, self.folder = name, [str(word) for word in command], url, Path(folder)
        self.core, self.cookie, self.version = core, cookie, version
        self.environment = {**os.environ, **(environment or {})}
        self.tokens = None
        self.process = None

    @property
    def port(self):
        return int(self.url.rsplit(":", 1)[1])

    def start(self):
        with open(self.folder / "output", "ab") as output, on_core(self.core):
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.environment
            )

    def stop(self):
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(self.ends_within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def must_run(self):
        if self.process.poll() is not None:
            words = (self.folder / "output").read_text(errors="replace")[-2000:]
            raise Failure(f"{self.name} ended with {self.process.returncode}: {words}")

    def cpu(self):
        """Seconds of CPU so far: utime and stime of proc(5), of all threads and all children."""
        ticks = 0
        for pid in family(self.process.pid):
            # The name in parentheses may hold anything; behind it, utime and stime are fields 12 and 13.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS

    def memory(self):
        """Resident bytes, children included."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in family(self.process.pid))
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def on_core(core):
    """What is started in here stays on that core; on none, where the system puts it."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def family(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in family(int(child)))]


def wait_until(ready, what, pause=0.02, within=GIVE_UP):
    """Asks again and again; `ready` returns something true, or raises OSError while it is too early."""
    deadline = time.monotonic() + within
    reason = "it said nothing"
    while time.monotonic() < deadline:
        try:
            if answer := ready():
                return answer
        except OSError as error:
            reason = error
        time.sleep(pause)
    raise Failure(f"{what}: {reason}")


def run(*command, text=None):
    """Runs a command to its end and returns what it said."""
    done = subprocess.run(
        [str(word) for word in command], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise Failure(f"{Path(command[0]).name} ended with {done.returncode}: {done.stdout.strip()}")
    return done.stdout


def tool(name):
    # /usr/sbin is often not in the PATH of people.
    if path := shutil.which(name) or shutil.which(name, path="/usr/sbin"):
        return path
    raise Missing(f"{name} is not installed")
