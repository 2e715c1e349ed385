"""The table: one line a figure, one column a server, and whether the goals are met."""

import dataclasses
import operator
import statistics

OURS, BEFORE = "Portcullis", "before"
SIGNS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt}


@dataclasses.dataclass
class Goal:
    """Of our figure, or of its ratio to a peer's."""

    sign: str
    bound: float
    peer: str | None = None

    def verdict(self, values):
        ours, theirs = values.get(OURS), values.get(self.peer, [])
        if not ours or (self.peer and not theirs):
            return ""
        # A round's ratio is free of what disturbed that round.
        measured = [mine / other for mine, other in zip(ours, theirs, strict=True)] if self.peer else ours
        figure = statistics.median(measured)
        met = "met" if SIGNS[self.sign](figure, self.bound) else "NOT met"
        bound = f"{self.sign} {self.bound:g}"
        if not self.peer:
            return f"{bound}: {met}"
        return f"{figure:.2f} x {self.peer} ({min(measured):.2f} to {max(measured):.2f}), {bound}: {met}"


@dataclasses.dataclass
class Row:
    figure: str
    name: str
    digits: int = 1
    goals: tuple[Goal, ...] = ()


# A change may cost what the rounds cannot tell from nothing.
AS_BEFORE = Goal("<=", 1.02, BEFORE)

ROWS = [
    Row(
        "h1 cpu", "S1 h1: CPU a request, µs", 1, (AS_BEFORE, Goal("<=", 0.80, "nginx"), Goal("<=", 0.60, "HAProxy JWT"))
    ),
    Row("h1 few", "S1 the same, 32 connections", 1),
    Row("h1 rate", "S1 requests a second", 0, (Goal(">=", 5, "nginx auth_request"),)),
    Row("h1 p99", "S1 p99, ms", 2),
    Row("h1 busy", "S1 proxy's core busy, %", 0),
    Row("h2 cpu", "S2 h2: CPU a request, µs", 1, (AS_BEFORE, Goal("<=", 0.85, "nginx"), Goal("<=", 1.0, "HAProxy"))),
    Row("h2 rate", "S2 requests a second", 0),
    Row("h1 bytes", "S3 h1 download: CPU a MiB, µs", 0, (Goal("<=", 0.65, "nginx"),)),
    Row("h2 bytes", "S3 h2 download: CPU a MiB, µs", 0, (Goal("<=", 0.65, "nginx"),)),
    Row("growth", "S3 memory growth in a long body, MiB", 1, (Goal("<=", 4),)),
    Row("handshakes", "S4 full handshakes a second of a core", 0, (Goal(">=", 1, "nginx"), Goal(">=", 1, "HAProxy"))),
    Row("resumption", "S4 second connection resumes", 0, (Goal(">=", 1),)),
    Row("idle", "S5 idle connection, KiB", 1, (Goal("<=", 16),)),
    Row("websocket", "S5 idle WebSocket, KiB", 1, (Goal("<=", 40),)),
    Row("added p50", "S9 added latency p50, ms", 3, (Goal("<=", 0.3),)),
    Row("added p99", "S9 added latency p99, ms", 3, (Goal("<=", 1),)),
    Row("start", "S10 exec to first request, ms", 0, (Goal("<", 100),)),
    Row("size", "S10 program, MB", 1, (Goal("<", 25),)),
]


def table(figures, servers, markdown):
    """Medians. A server that was not asked has a dash."""
    lines = [["figure", *servers]]
    goals = ["goals"]
    for row in ROWS:
        if values := figures.get(row.figure):
            lines.append([row.name, *(cell(values.get(server), row.digits) for server in servers)])
            verdicts = [goal.verdict(values) for goal in row.goals]
            goals.append("; ".join(verdict for verdict in verdicts if verdict))
    return as_markdown(lines, goals) if markdown else as_text(lines, goals)


def cell(values, digits):
    if not values:
        return "-"
    if isinstance(values[0], bool):
        return "yes" if all(values) else "no"
    return f"{statistics.median(values):.{digits}f}"


def as_markdown(lines, goals):
    rows = [[*line, goal] for line, goal in zip(lines, goals, strict=True)]
    rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 2), "---"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def as_text(lines, goals):
    """A terminal is not wide enough for the goals beside the figures."""
    first, *others = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = ["  ".join([line[0].ljust(first), *map(str.rjust, line[1:], others)]) for line in lines]
    below = [f"{line[0].ljust(first)}  {goal}" for line, goal in zip(lines, goals, strict=True) if goal]
    return "\n".join([*rows, "", *(below if any(goals[1:]) else [])]).rstrip()
