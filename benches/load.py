"""The load, on the core of its own: our own program over HTTP/1.1, h2load over HTTP/2. A failed request fails the run."""

import dataclasses
import functools
import re
import subprocess
import tempfile
import time
from pathlib import Path

from lab import BODY, HERE
from servers import LOAD, Failure, on_core, run, tool


@dataclasses.dataclass
class Load:
    requests: int
    seconds: float
    size: int  # bytes of all answers
    p99: float = 0.0  # milliseconds


@functools.cache
def loader():
    """What asks over HTTP/1.1; built where it has not been."""
    folder = HERE / "load"
    build = ["cargo", "build", "--release", "--locked", "--quiet", "--target-dir", folder / "target"]
    subprocess.run(build, cwd=folder, check=True)
    return folder / "target/release/portcullis-load"


def http1(server, authority, seconds, connections, path="/", cookie=None):
    """HTTP/1.1, keep-alive. All requests have the server's cookie, unless told another; `NAME=@FILE` is one after the other
    of those with whose values the file's lines begin.
    """
    sent = cookie or server.cookie
    words = [f"127.0.0.1:{server.port}", authority, path, connections, seconds, *([sent] if sent else [])]
    program = loader()
    with on_core(LOAD):
        said = run(program, *words)
    figures = re.search(r"^figures (\d+) (\d+) (\d+) (\d+)$", said, re.MULTILINE)
    if not figures:
        raise Failure(f"the load gave no figures for {server.name}: {said}")
    done, micros, p99, size = map(int, figures.groups())
    return right(server, Load(done, micros / 1e6, size, p99 / 1e3))


def h2load(server, *words, path="/", seconds=0.0):
    """HTTP/2, unless told `--h1`."""
    target = [f"--connect-to=127.0.0.1:{server.port}", *cookie(server), f"{server.url}{path}"]
    began = time.monotonic()
    with on_core(LOAD):
        said = run(tool("h2load"), *words, *target)
    took = seconds or time.monotonic() - began
    done = re.search(r"^requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout$", said, re.MULTILINE)
    codes = re.search(r"^status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx$", said, re.MULTILINE)
    data = re.search(r"^traffic: .* \((\d+)\) data$", said, re.MULTILINE)
    if not done or not codes or not data:
        raise Failure(f"h2load gave no figures for {server.name}: {said}")
    succeeded, *failed = map(int, done.groups() + codes.groups())
    return right(server, Load(succeeded, took, int(data[1])), sum(failed))


def right(server, load, failed=0):
    server.must_run()
    if failed or not load.size or load.size < load.requests * BODY:
        raise Failure(f"{server.name}: {load.requests} answers of {load.size} bytes, and {failed} failed requests")
    return load


def latencies(server, rate, seconds):
    """Milliseconds of each of `rate` requests a second, evenly spread over one connection of HTTP/1.1."""
    with tempfile.TemporaryDirectory() as folder:
        script, log = Path(folder, "script"), Path(folder, "log")
        script.write_text("".join(f"{i * 1000 / rate:.3f}\t{server.url}/\n" for i in range(int(rate * seconds))))
        h2load(server, "--h1", "-c1", f"--timing-script-file={script}", f"--log-file={log}")
        return sorted(int(line.split("\t")[2]) / 1e3 for line in log.read_text().splitlines())


def cookie(server):
    return ["-H", f"Cookie: {server.cookie}"] if server.cookie else []
