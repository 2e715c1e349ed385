"""Access rules and tokens as a large installation has them (S13)."""

import itertools
import json
import subprocess

RULES, TOKENS = 200, 1000


def add_rules(server):
    """Areas by path, one in ten by a regular expression, and none of them about what is asked for."""
    configuration = server.folder / "portcullis.toml"
    rules = [configuration.read_text()]
    for number in range(RULES):
        path = f'path = ["/area-{number}/*", "/area-{number}"]'
        if number % 10 == 0:
            path = f"regex = ['^/api/v[0-9]+/area-{number}/[0-9a-f]+/files$']"
        level = ("bypass", "one_factor", "two_factor", "deny")[number % 4]
        rules.append(f'[[access.rules]]\n{path}\nmethods = ["GET", "POST"]\nlevel = "{level}"\n')
    configuration.write_text("\n".join(rules))


def make_tokens(server):
    """Returns them for ever, in turns."""
    program, configuration = server.command[-4], server.folder / "portcullis.toml"
    make = [program, "token", "create", "--service", "bench", "--json", "--config", configuration]
    made = []
    for number in range(TOKENS):
        done = subprocess.run([*make, f"bench-{number}"], capture_output=True, check=True)
        made.append(json.loads(done.stdout)["token"])
    return itertools.cycle(made)
