"""Runs in the emulator, as root: our unit tests, then pyspy-runner at every Python that is there.
One line a check; the last one says how many passed."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

HERE = "/check"
SUITES = "/suites"
RUNNER = "/usr/bin/pyspy-runner"
LIMIT = 60  # seconds for what takes less than ten
RATE = 100
SECONDS = 3

passed = failed = 0


class Wrong(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Wrong(text)


def check(name, function, *arguments):
    global passed, failed
    if not all(word in name for word in sys.argv[1:]):
        return
    start = time.monotonic()
    try:
        figures = function(*arguments)
        passed += 1
        word = "ok"
    except Exception as e:
        failed += 1
        word, figures = "FAILED", e if isinstance(e, Wrong) else repr(e)
    print(f"{word} {name}: {figures} ({time.monotonic() - start:.1f} s)", flush=True)


def marks():
    """The lines of programs.py by their marks."""
    found = {}
    with open(f"{HERE}/programs.py") as source:
        for number, line in enumerate(source, 1):
            mark = re.search(r"# mark: (\w+)", line)
            if mark:
                found.setdefault(mark[1], []).append(number)
    return found


LINES = marks()


@contextlib.contextmanager
def program(suite, mode, **environment):
    """One of programs.py, in the root of a suite and in a PID namespace of its own, as in a
    container. Gives its number here."""
    command = ["enter", f"{SUITES}/{suite}", "/usr/bin/python3", "/check/programs.py", mode]
    outer = subprocess.Popen(
        ["unshare", "-p", "-f", *command],
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        expect(outer.stdout.readline() == b"ready\n", f"{mode} did not start")
        with open(f"/proc/{outer.pid}/task/{outer.pid}/children") as children:
            pid = int(children.read().split()[0])
        yield pid
    finally:
        with contextlib.suppress(UnboundLocalError, ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # the first of its namespace: all others end with it
        outer.kill()
        outer.wait()


def run(*arguments):
    done = subprocess.run(
        [RUNNER, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    expect(done.returncode == 0, f"status {done.returncode}: {done.stderr.strip()[-300:]}")
    return done


FRAME = re.compile(r"(.+) \((.+):(\d+)\)$")


def record(pid, *options, seconds=SECONDS):
    """[([(function, line)…], samples)…], and what it says at its end."""
    done = run(
        "record",
        "-p",
        str(pid),
        "-d",
        str(seconds),
        "-r",
        str(RATE),
        "-f",
        "raw",
        "-o",
        "-",
        *options,
    )
    stacks = []
    for line in done.stdout.splitlines():
        text, count = line.rsplit(" ", 1)
        frames = []
        for frame in text.split(";"):
            match = FRAME.match(frame)
            if match:
                expect(match[2] == "programs.py", f"file of {frame}")
                frames.append((match[1], int(match[3])))
            else:
                frames.append((frame, 0))
        stacks.append((frames, int(count)))
    errors = int(re.search(r"(\d+) errors", done.stderr)[1])
    return stacks, errors


def shares(stacks, *callers):
    """How many samples are of busy() under these callers, and the share of long() in them. All
    that is in busy() has to be what the program says, line by line."""
    allowed = {
        (*callers, *rest)
        for rest in [("busy",), ("busy", "long"), ("busy", "short")]
        + [("busy", x, "work") for x in ("long", "short")]
        + [("busy", "ready")]
    }
    total = long = 0
    for frames, count in stacks:
        names = tuple(name for name, _ in frames)
        if "busy" not in names:
            continue
        expect(names in allowed, f"a stack that is none: {frames}")
        for name, line in frames:
            lines = LINES["main" if name == "<module>" else name]
            expect(line in lines, f"line {line} in {name}, which has {lines}")
        total += count
        long += count * ("long" in names)
    expect(total > 0, f"no samples of busy(): {stacks[:3]}")
    return total, long / total


def busy(suite, *options):
    with program(suite, "busy") as pid:
        return busy_process(pid, *options)


# Pointers whose top byte is not 0, in all that malloc() gives.
def tagged_pointers(suite):
    tagged = {"LD_PRELOAD": "/check/tagged.so", "PYTHONMALLOC": "malloc"}
    with program(suite, "busy", **tagged) as pid:
        with open(f"/proc/{pid}/maps") as maps:
            expect("/check/tagged.so" in maps.read(), "not preloaded")
        return busy_process(pid)


def busy_process(pid, *options):
    stacks, errors = record(pid, *options)
    total, long = shares(stacks, "<module>")
    everything = sum(count for _, count in stacks)
    text = f"{total} of {everything} samples, {long:.0%} in long(), {errors} errors"
    expect(total == everything, text)
    expect(total >= RATE * SECONDS / 4 and 0.6 < long < 0.9 and errors <= total // 100, text)
    return text


def sleepers(suite):
    with program(suite, "sleepers") as pid:
        stacks, errors = record(pid)
    total, _ = shares(stacks, "<module>", "sleepers")
    asleep = sum(count for frames, count in stacks if "busy" not in dict(frames))
    text = f"{asleep} of {total + asleep} samples are of the 20 sleepers, {errors} errors"
    expect(asleep * 100 <= total and total >= RATE * SECONDS / 4 and errors <= total // 100, text)
    return text


def children(suite):
    with program(suite, "children") as pid:
        stacks, errors = record(pid, "-s", seconds=SECONDS + 1)
    by_process = {}
    for frames, count in stacks:
        name = frames[0][0]
        by_process[name] = by_process.get(name, 0) + count
        expect(name.startswith("process "), f"the root is {name}")
        expect(frames[2][0] == "children" and "busy" in [n for n, _ in frames], f"stack {frames}")
    text = f"{sorted(by_process.values())} samples of the two children, {errors} errors"
    expect(len(by_process) == 2 and min(by_process.values()) >= RATE * SECONDS / 8, text)
    return text


def dump(suite, minor):
    with program(suite, "stack") as pid:
        deadline = time.monotonic() + LIMIT
        while True:
            text = run("dump", "-p", str(pid)).stdout
            # It says that it is ready one line early.
            if f":{LINES['inner'][0]})" in text or time.monotonic() > deadline:
                break
    want = [("inner", "inner"), ("Some.method" if minor >= 11 else "method", "method")]
    want += [("generator", "generator"), ("deep", "loop")] + [("deep", "deep")] * 30
    want += [("stack", "stack"), ("<module>", "main")]
    lines = [f"    {name} ({HERE}/programs.py:{LINES[mark][0]})" for name, mark in want]
    got = text.splitlines()
    expect(re.match(rf"Process {pid}: Python 3\.{minor}\.\d+$", got[0]), got[0])
    expect(re.match(r'Thread \d+ \(idle\): "', got[2]), got[2])
    expect(got[3:] == lines, "\n".join(got))
    return f"{len(lines)} frames with their lines; {got[0].split(': ')[1]}"


def threads(suite):
    """Every thread by the kernel's number for it here, not by the one in its own namespace."""
    with program(suite, "sleepers") as pid:
        time.sleep(1)  # until all of them have got to their sleep
        text = run("dump", "-p", str(pid)).stdout
        there = {int(name): name for name in os.listdir(f"/proc/{pid}/task")}
        states = {}
        for tid in there:
            with open(f"/proc/{pid}/task/{tid}/stat") as stat:
                states[tid] = stat.read().rsplit(")", 1)[1].split()[0]
    blocks = re.findall(r"^Thread (\d+) \((\w+)[^)]*\): .*\n    (\w+) ", text, re.MULTILINE)
    found = {int(tid): (state, function) for tid, state, function in blocks}
    expect(len(blocks) == 21 and found.keys() == there.keys(), f"{blocks}, not {sorted(there)}")
    for tid, (state, function) in found.items():
        want = ("idle", "sleep") if tid != pid else ("running", function)
        expect((state, function) == want, f"thread {tid} of {pid}: {state} in {function}()")
        expect((states[tid] == "R") == (tid == pid), f"thread {tid} is {states[tid]}")
    return "21 threads, 20 of them idle in sleep()"


def top(suite):
    with program(suite, "sleepers") as pid:
        child = subprocess.Popen(
            [RUNNER, "top", "-p", str(pid), "-r", str(RATE)], stdout=subprocess.PIPE, text=True
        )
        text = ""
        try:
            deadline = time.monotonic() + LIMIT
            while "work (" not in text:  # one table a second
                line = child.stdout.readline()
                expect(line and time.monotonic() < deadline, f"no table with work(): {text}")
                text += line
            child.send_signal(signal.SIGINT)
            text += child.stdout.read()
            child.wait(timeout=LIMIT)
        finally:
            child.kill()
    expect(child.returncode == 0, f"status {child.returncode}")
    rows = re.findall(r"^ *([\d.]+) +([\d.]+)  (\S+) \(", text.split("process ")[1], re.MULTILINE)
    functions = {name: (float(own), float(total)) for own, total, name in rows}
    expect(rows and rows[0][2] == "work", f"first is {rows[:2]}")
    own, total = functions["work"][0], functions["busy"][1]
    expect(own > 60 and total > 90 and "sleep" not in functions, f"{functions}")
    return f"work {own} % own, busy {total} % total"


def ends(suite):
    with program(suite, "ends") as pid:
        start = time.monotonic()
        done = run("record", "-p", str(pid), "-d", "50", "-f", "raw", "-o", "-")
    took = time.monotonic() - start
    expect("it ended" in done.stderr and took < 40, f"{took:.1f} s; {done.stderr}")
    return "noticed"


def unit(path):
    done = subprocess.run(
        [path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=4 * LIMIT,
    )
    last = "\n".join(done.stdout.splitlines()[-20:])
    expect(done.returncode == 0, f"status {done.returncode}\n{last}")
    tests = re.findall(r"\[  PASSED  \] (\d+) test", done.stdout)
    expect(tests, f"no summary\n{last}")
    skipped = re.findall(r"^skipped.*|\[  SKIPPED \] test_.*", done.stdout, re.MULTILINE)
    return "; ".join([f"{tests[-1]} tests", *skipped])


def main():
    name = os.uname()
    print(f"{name.machine}, Linux {name.release}, pages of {os.sysconf('SC_PAGESIZE') // 1024} KiB")
    for path in sorted(os.listdir("/tests")):
        check(f"unit {path}", unit, f"/tests/{path}")
    for suite in sorted(os.listdir(SUITES)):
        text = subprocess.run(
            ["enter", f"{SUITES}/{suite}", "/usr/bin/python3", "-V"],
            capture_output=True,
            text=True,
            timeout=LIMIT,
        ).stdout
        minor = int(re.match(r"Python 3\.(\d+)", text)[1])
        python = text.strip()
        check(f"{python} dump", dump, suite, minor)
        check(f"{python} threads", threads, suite)
        check(f"{python} busy", busy, suite)
        check(f"{python} busy --gil", busy, suite, "-g")
        check(f"{python} 1 busy, 20 asleep", sleepers, suite)
        check(f"{python} subprocesses", children, suite)
        check(f"{python} top", top, suite)
        check(f"{python} ends", ends, suite)
        check(f"{python} tagged pointers", tagged_pointers, suite)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 0 if failed == 0 else 1


sys.exit(main())
