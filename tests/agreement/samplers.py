"""Both samplers at one program at the same time."""

import contextlib
import dataclasses
import functools
import json
import operator
import os
import pathlib
import re
import signal
import subprocess

PROGRAMS = pathlib.Path(__file__).parent / "programs"


@dataclasses.dataclass
class Tools:
    runner: str
    py_spy: str


@contextlib.contextmanager
def program(python, name, folder):
    """Runs it until it has said "ready"; ends it with all of its children."""
    process = subprocess.Popen(
        [python, str(PROGRAMS / f"{name}.py"), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{python} {name}.py did not get ready")
        yield process.pid
        if process.poll() is not None:
            raise RuntimeError(f"{python} {name}.py ended with {process.returncode}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def go_first():
    """What loses its core in the middle of a stack has none that ever was."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def start(command):
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=go_first,
    )


def finish(runs, seconds):
    """What they said."""
    try:
        said = [run.communicate(timeout=seconds * 3 + 60)[1].strip() for run in runs]
    finally:
        for run in runs:
            run.kill()
            run.wait()
    for run, text in zip(runs, said, strict=True):
        if run.returncode:
            raise RuntimeError(f"{run.args[0]}: status {run.returncode}: {text}")
    return said


def record_commands(tools, pid, seconds, rate, folder, options):
    common = ["record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(rate)]
    common += [*options, "--format", "raw", "--output"]
    return (
        [tools.runner, *common, str(folder / "ours.txt")],
        [tools.py_spy, *common, str(folder / "theirs.txt"), "--full-filenames"],
    )


@dataclasses.dataclass
class Looks:
    """What pyspy-runner says of itself at the end of a run."""

    number: int = 0
    errors: int = 0
    late: int = 0
    waited: bool = False  # the program, for a core, much of the time

    def __add__(self, other):
        return Looks(
            self.number + other.number,
            self.errors + other.errors,
            self.late + other.late,
            self.waited or other.waited,
        )

    @property
    def on_time(self):
        return self.late * 20 <= self.number and not self.waited

    def __str__(self):
        return f"{self.errors} of {self.number} looks failed, {self.late} late"


ROUNDS = 3


def held_rate(python, rate):
    """Below 3.11 ours does not hold a thread while it reads, where more looks a second are asked
    for than that."""
    return min(rate, 250) if python.version < (3, 11) else rate


class Rounds:
    """Runs of one program, whose samples add up: chance shrinks, and a real difference does not.
    Where looks come late for want of a core, ours are left out and py-spy's are made up for
    afterwards; where the program waits for one, a few of its stacks stand for most of the time.
    What such a run says counts only where there is no other, and against neither."""

    def __init__(self):
        self.runs = []

    def wanted(self):
        on_time = sum(run[-1].on_time for run in self.runs)
        return on_time < ROUNDS and len(self.runs) < 2 * ROUNDS

    def in_vain(self):
        """Whether the machine was too busy for every one."""
        return not any(run[-1].on_time for run in self.runs)

    def add(self, *run):
        """Whatever can be added; looks come last. Returns the sums."""
        self.runs.append(run)
        counted = [r for r in self.runs if r[-1].on_time] or self.runs
        return [functools.reduce(operator.add, column) for column in zip(*counted, strict=True)]

    def __str__(self):
        late = sum(not run[-1].on_time for run in self.runs)
        return f"  [{len(self.runs)} rounds, {late} late]" if len(self.runs) > 1 else ""


def looks_of(said):
    def number(what):
        return int(re.search(rf"(\d+) {what}\b", said)[1])

    return Looks(number("looks"), number("errors?"), number("late"))


def record(tools, pid, seconds, rate, folder, options=()):
    """Collapsed stacks of ours and py-spy's, and ours' looks."""
    ours, theirs = record_commands(tools, pid, seconds, rate, folder, options)
    said = finish([start(ours), start([*theirs, "--nonblocking"])], seconds)
    texts = [(folder / name).read_text() for name in ("ours.txt", "theirs.txt")]
    return *texts, looks_of(said[0])


def record_in_turn(tools, pid, seconds, rate, folder, options=()):
    """The same one after the other, with py-spy stopping the process for each of its samples."""
    ours, looks = record_ours(tools, pid, seconds, rate, folder, options)
    _, theirs = record_commands(tools, pid, seconds, rate, folder, options)
    finish([start(theirs)], seconds)
    return ours, (folder / "theirs.txt").read_text(), looks


def record_ours(tools, pid, seconds, rate, folder, options=()):
    ours, _ = record_commands(tools, pid, seconds, rate, folder, options)
    said = finish([start(ours)], seconds)
    return (folder / "ours.txt").read_text(), looks_of(said[0])


def dump_ours(tools, pid):
    """The stacks of all threads, each a tuple of (function, file, line), innermost first."""
    text = subprocess.run(
        [tools.runner, "dump", "--pid", str(pid)], check=True, capture_output=True, text=True
    ).stdout
    stacks = []
    for line in text.splitlines():
        if line.startswith("Thread "):
            stacks.append([])
        elif found := re.fullmatch(r" {4}(.*) \((.*):(-?\d+)\)", line):
            stacks[-1].append((found[1], found[2], int(found[3])))
    return sorted(map(tuple, stacks))


def dump_theirs(tools, pid):
    text = subprocess.run(
        [tools.py_spy, "dump", "--nonblocking", "--json", "--pid", str(pid)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return sorted(
        tuple((f["name"], f["filename"], f["line"]) for f in thread["frames"])
        for thread in json.loads(text)
    )
