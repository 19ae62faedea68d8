"""Shares of functions and lines in two samplers' collapsed stacks, and where they disagree."""

import collections
import dataclasses
import re

# Below 3.11 py-spy does not ask the kernel without stopping the process: it takes a thread for
# idle that stands in one of these, whether or not it runs. Neither sampler's are counted.
IDLE = re.compile(r"(\w+\.)?(wait|select) \((threading|selectors)\.py\)$")
ASLEEP = re.compile(r"(\w+\.)?wait \(threading\.py\)$")
FRAME = re.compile(r"(?P<function>.+) \((?:[^()]*/)?(?P<file>[^()/]+):(?P<line>\d+)\)$")


@dataclasses.dataclass
class Shares:
    """Of all samples: `own` of functions at the end of a stack, `total` of functions anywhere in
    it, `line` of lines at its end, `call` of lines anywhere in it, `roots` of functions at its
    beginning. Beside them: how many more were of threads that sleep."""

    samples: int
    asleep: int
    own: dict
    total: dict
    line: dict
    call: dict
    roots: dict


KINDS = ("own", "total", "line", "call")


def shares(text):
    """From "frame;frame;frame count" a line; frames are "function (file:line)", and those that
    are not (processes, threads) are left out."""
    counts = {kind: collections.Counter() for kind in (*KINDS, "roots")}
    samples = asleep = 0
    for row in text.splitlines():
        stack, _, number = row.rpartition(" ")
        count = int(number)
        found = [m for m in map(FRAME.match, stack.split(";")) if m]
        functions = ["{function} ({file})".format_map(m.groupdict()) for m in found]
        frames = ["{function} ({file}:{line})".format_map(m.groupdict()) for m in found]
        if not found or IDLE.match(functions[-1]):
            asleep += count if found and ASLEEP.match(functions[-1]) else 0
            continue
        samples += count
        counts["own"][functions[-1]] += count
        counts["line"][frames[-1]] += count
        counts["roots"][functions[0]] += count
        for function in set(functions):
            counts["total"][function] += count
        for frame in set(frames):
            counts["call"][frame] += count
    whole = samples or 1
    parts = {k: {f: n / whole for f, n in c.items()} for k, c in counts.items()}
    return Shares(samples, asleep, **parts)


def worst(ours, theirs, kind):
    """The largest difference in points, and what it is of."""
    a, b = getattr(ours, kind), getattr(theirs, kind)
    return max(((abs(a.get(k, 0) - b.get(k, 0)) * 100, k) for k in {*a, *b}), default=(0.0, ""))


@dataclasses.dataclass
class Bounds:
    points: float  # the largest difference of a share
    seen: float  # percent of the samples from which on both must know a line
    torn: float  # percent of our stacks that may begin elsewhere than the program does
    asleep: float  # percent of our stacks that may be of threads that sleep
    samples: int  # fewer say nothing


def disagreements(ours, theirs, bounds, kinds=KINDS):
    """What is wrong, as sentences."""
    found = []
    for who, s in (("pyspy-runner", ours), ("py-spy", theirs)):
        if s.samples < bounds.samples:
            found.append(f"{who}: {s.samples} samples say too little")
    for kind in kinds:
        difference, name = worst(ours, theirs, kind)
        if difference > bounds.points:
            a, b = (getattr(s, kind).get(name, 0) * 100 for s in (ours, theirs))
            found.append(f"{kind} share of {name}: {a:.1f} %, py-spy {b:.1f} %")
    found.extend(lines_of_one(ours, theirs, bounds.seen))
    torn = strange_roots(ours, theirs)
    if torn > bounds.torn:
        found.append(f"{torn:.2f} % of our stacks do not begin where the program does")
    if ours.asleep * 100 > bounds.asleep * (ours.samples + ours.asleep):
        found.append(f"{ours.asleep} of our stacks are of threads that sleep")
    return found


def lines_of_one(ours, theirs, seen):
    """Lines that one of the two saw in so many percent of its samples, and the other never."""
    return [
        f"{who} never saw {name}: {share * 100:.1f} %"
        for who, a, b in (("py-spy", ours, theirs), ("pyspy-runner", theirs, ours))
        for name, share in a.call.items()
        if share * 100 >= seen and name not in b.call
    ]


def strange_roots(ours, theirs):
    """Percent of our stacks whose outermost function is one of no real share in either."""
    real = {f for s in (ours, theirs) for f, share in s.roots.items() if share >= 0.01}
    return sum(share for f, share in ours.roots.items() if f not in real) * 100
