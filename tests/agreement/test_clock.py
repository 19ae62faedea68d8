"""Stacks that change faster than py-spy can follow, against the time that each part kept itself."""

import collections
import json
import os
import re
import signal
import time

import pytest
from samplers import Rounds, held_rate, program, record_ours
from shares import shares

RATE = 500
POINTS = 3
TORN = 0.1  # percent
WAITING = 0.25  # of the time: then chance decides which stacks stand for the rest
ERRORS = 2  # percent of the looks

# Below 3.11 the thread waits while it is read, for 0.5 ms where its stack is 150 frames that nobody
# has met before: a part that recurses so takes more of the time by its clock than can be sampled.
POINTS_BY_FRAME = 5

# Free-threaded builds give each new generator another address, so that it is not among those that
# are copied: where generators live for less than a copy takes, and delegate, 3 to 5 points are
# missing on an idle machine.
POINTS_NEW_ADDRESSES = 7
PARTS = ("recurse", "alternate", "generate", "delegate", "catch")


def clock(pid, folder):
    """The seconds of each part since the last call, as the program knows them."""
    path = folder / "clock.json"
    path.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    end = time.monotonic() + 30
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return json.loads(path.read_text())


def waiting(pid):
    """Seconds for which it has waited for a core."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[1]) / 1e9


def measure(tools, python, folder, looks):
    rate = held_rate(python, RATE)
    seconds = looks // rate
    with program(python.path, "clock", folder) as pid:
        clock(pid, folder)
        before = waiting(pid)
        text, looks = record_ours(tools, pid, seconds, rate, folder)
        looks.waited = waiting(pid) - before > seconds * WAITING
        return text, collections.Counter(clock(pid, folder)), looks


def share_of(sampled, part):
    return sum(s for f, s in sampled.total.items() if re.match(rf"(\w+\.)*{part} \(", f)) * 100


def wrong(sampled, spent, looks, most_points, most_errors):
    """The largest difference in points, percent of torn stacks, and what is too much."""
    whole = sum(spent.values())
    found, points = [], 0
    for part in PARTS:
        ours, kept = share_of(sampled, part), spent[part] / whole * 100
        points = max(points, abs(ours - kept))
        if abs(ours - kept) > most_points:
            found.append(f"{part}: {ours:.1f} %, by its clock {kept:.1f} %")
    torn = sum(s for f, s in sampled.roots.items() if not f.startswith("<module> ")) * 100
    if torn > TORN:
        found.append(f"{torn:.2f} % of the stacks do not begin where the program does")
    if looks.errors * 100 > most_errors * looks.number:
        found.append(str(looks))
    return points, torn, found


def test_clock(tools, python, tmp_path, table, pytestconfig):
    wanted = 5000 if pytestconfig.getoption("--full") else 2000  # looks
    bounds = (POINTS_NEW_ADDRESSES if python.free_threaded else POINTS, ERRORS)
    if python.version < (3, 11):
        bounds = (POINTS_BY_FRAME, ERRORS)
    rounds, found = Rounds(), [""]
    while found and rounds.wanted():
        text, spent, looks = rounds.add(*measure(tools, python, tmp_path, wanted))
        sampled = shares(text)
        points, torn, found = wrong(sampled, spent, looks, *bounds)
    table.append(
        f"{python.name:8} {'clock':14} {points:4.1f} points of its own clock"
        f"  {sampled.samples} samples  torn {torn:.2f} %  {looks}"
        f"{rounds}"
    )
    if found and rounds.in_vain():
        pytest.skip(f"too busy a machine, {looks}: {'; '.join(found)}")
    assert not found, "\n".join(found)
