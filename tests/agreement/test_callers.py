"""Who calls whom, and how often, against what the program's text says."""

import collections
import re

from samplers import PROGRAMS, Rounds, held_rate, program, record_ours

POINTS = 5  # calls from one place may take somewhat longer than from the other
ELSEWHERE = 1  # percent

FRAME = re.compile(r"(?:.*\.)?(\w+|<\w+>) \(.*:(\d+)\)$")
SOURCE = (PROGRAMS / "exceptions.py").read_text().splitlines()

# catch() calls fail() 60 times while chain() does 40 times. __exit__() belongs to the line of the
# "with", or, up to 3.9, to the one that raises.
CALLS = {"catch": 60, "chain": 40}
LINES = {"fail": ("fail(i)",), "__exit__": ("with Guard", "raise KeyError")}


def pairs(text):
    """Stacks by a function in them, its caller, and the caller's line."""
    counts = collections.Counter()
    for row in text.splitlines():
        stack, _, number = row.rpartition(" ")
        frames = [m.groups() for m in map(FRAME.match, stack.split(";")) if m]
        for (caller, line), (callee, _) in zip(frames, frames[1:], strict=False):
            counts[callee, caller, SOURCE[int(line) - 1].strip()] += int(number)
    return counts


def wrong(counts):
    found = []
    callers = collections.Counter()
    for (callee, caller, _), n in counts.items():
        callers[caller] += n if callee == "fail" else 0
    whole = sum(callers[caller] for caller in CALLS)
    for caller, times in CALLS.items():
        share = callers[caller] / whole * 100
        if abs(share - times) > POINTS:
            found.append(f"fail: {share:.1f} % of it by {caller}, which has {times} of 100 calls")
    for callee, lines in LINES.items():
        all_of_it = collections.Counter()
        for (f, _, line), n in counts.items():
            all_of_it[line] += n if f == callee else 0
        strange = sum(n for line, n in all_of_it.items() if not line.startswith(lines))
        share = strange / sum(all_of_it.values()) * 100
        if share > ELSEWHERE:
            found.append(
                f"{callee}: {share:.1f} % of it by lines that do not call it: {dict(+all_of_it)}"
            )
    return found


def test_callers(tools, python, tmp_path, table):
    rate = held_rate(python, 500)
    rounds, found = Rounds(), [""]
    while found and rounds.wanted():
        with program(python.path, "exceptions", tmp_path) as pid:
            text, looks = record_ours(tools, pid, 3000 // rate, rate, tmp_path)
        counts, looks = rounds.add(pairs(text), looks)
        found = wrong(counts)
    table.append(
        f"{python.name:8} {'callers':14} {'; '.join(found) or 'as the text says'}  {looks}{rounds}"
    )
    assert not found, "\n".join(found)
