"""The shares of functions and lines are py-spy's, program by program. Where the two disagree who
sample at the same time, py-spy's word counts that it gives when it stops the program for each of
its samples."""

import dataclasses
import time

import pytest
from conftest import MODULES, has_modules
from samplers import Looks, Rounds, held_rate, program, record, record_in_turn
from shares import (
    KINDS,
    Bounds,
    Shares,
    disagreements,
    lines_of_one,
    shares,
    strange_roots,
    worst,
)

BOUNDS = Bounds(points=3, seen=1, torn=0.1, asleep=1, samples=1000)
ERRORS = 3  # percent of the looks

# Looks a second, and options of both. Below 3.11 py-spy cannot tell who waits for the
# interpreter's lock from who runs; with --gil it need not.
PROGRAMS = {
    "recursion": (500, ()),
    "generators": (500, ()),
    "comprehension": (500, ()),
    "exceptions": (500, ()),
    "threads_gil": (500, ("--gil",)),
    "threads_native": (500, ()),
    "prefork": (250, ("--subprocesses",)),
    "tasks": (500, ()),
    "deep": (200, ()),
    "large": (500, ()),
    "arrays": (500, ()),
}


def compare(how, tools, python, name, folder, looks):
    rate, options = PROGRAMS[name]
    rate = held_rate(python, rate)
    with program(python.path, name, folder) as pid:
        time.sleep(0.2)
        return how(tools, pid, looks // rate, rate, folder, options)


@dataclasses.dataclass
class Comparison:
    ours: Shares
    theirs: Shares
    looks: Looks
    rounds: Rounds
    found: list

    @property
    def points(self):
        return max(worst(self.ours, self.theirs, kind)[0] for kind in KINDS)

    def __str__(self):
        a, b = self.ours, self.theirs
        each = ", ".join(f"{kind} {worst(a, b, kind)[0]:.1f}" for kind in KINDS)
        lines = "differ" if lines_of_one(a, b, BOUNDS.seen) else "equal"
        return (
            f"{self.points:4.1f} points ({each})  lines {lines:6}"
            f"  {a.samples} and {b.samples} samples"
            f"  torn {strange_roots(a, b):.2f} and {strange_roots(b, a):.2f} %"
            f"  {self.looks}{self.rounds}"
        )


def compared(how, tools, python, name, folder, wanted):
    """After as many rounds as it takes until they agree, or it is clear that they do not."""
    rounds, found = Rounds(), [""]
    while found and rounds.wanted():
        run = compare(how, tools, python, name, folder, wanted)
        ours, theirs, looks = rounds.add(*run)
        a, b = shares(ours), shares(theirs)
        found = disagreements(a, b, BOUNDS)
        if looks.errors * 100 > ERRORS * looks.number:
            found.append(str(looks))
    return Comparison(a, b, looks, rounds, found)


def test_shares(tools, python, program_name, tmp_path, table, pytestconfig):
    if python.free_threaded:
        pytest.skip(f"{python.path} is free-threaded: py-spy cannot read it")
    if not has_modules(python, program_name):
        pytest.skip(f"{python.path} fails at {MODULES[program_name]}")
    wanted = 5000 if pytestconfig.getoption("--full") else 3000  # looks
    for how, title in ((record, ""), (record_in_turn, "stopped")):
        c = compared(how, tools, python, program_name, tmp_path, wanted)
        table.append(f"{python.name:8} {program_name:14} {title:7} {c}")
        if not c.found:
            return
    if c.rounds.in_vain():
        pytest.skip(f"too busy a machine, {c.looks}: {'; '.join(c.found)}")
    assert not c.found, "\n".join(c.found)
