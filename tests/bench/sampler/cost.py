#!/usr/bin/env python3
"""Processor time a second and peak memory of pyspy-runner and py-spy at the same target, in turn, a
few rounds. What starting costs is taken out: each runs for a short and for a long time. The ratio
is that of the medians. All of it takes longer on a core that has nothing else to do; --busy leaves
no such core."""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time

MEMORY_KB = 4096  # that sampling may take
SHORT = 2  # seconds


def run(command):
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            break
        try:
            with open(f"/proc/{child.pid}/status") as f:
                peak = max([peak] + [int(t.split()[1]) for t in f if t.startswith("VmHWM:")])
        except (FileNotFoundError, ProcessLookupError):
            pass
        time.sleep(0.2)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command[0]} failed: {child.returncode}")
    return usage.ru_utime + usage.ru_stime, peak


@contextlib.contextmanager
def busy_cores(wanted):
    children = []
    try:
        for _ in range(os.cpu_count() if wanted else 0):
            children.append(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


def measure(tools, common, rounds, seconds):
    percents, peaks = {name: [] for name in tools}, dict.fromkeys(tools, 0)
    for _ in range(rounds):
        for name, command in tools.items():
            short, _ = run([*command, *common, str(SHORT)])
            whole, peak = run([*command, *common, str(seconds + SHORT)])
            percents[name].append((whole - short) / seconds * 100)
            peaks[name] = max(peaks[name], peak)
    return percents, peaks


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runner", required=True)
    parser.add_argument("--py-spy", required=True)
    parser.add_argument("--floor", help="sampler_floor, for what nobody can do without")
    parser.add_argument("--busy", action="store_true", help="give every core other work meanwhile")
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6, help="of a round of each program")
    parser.add_argument("pid", type=int)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, busy_cores(args.busy):
        peer = [args.py_spy, "record", "--format", "raw", "--output", f"{folder}/b.txt"]
        tools = {
            "pyspy-runner": [args.runner, "record", "--quiet", "--output", f"{folder}/a.txt"],
            "py-spy": peer,
            "py-spy --nonblocking": [*peer, "--nonblocking"],
        }
        if args.floor:
            tools["waking up and one call"] = [args.floor]
        common = ["--pid", str(args.pid), "--rate", str(args.rate), "--duration"]
        percents, peaks = measure(tools, common, args.rounds, args.seconds)
    ours = statistics.median(percents["pyspy-runner"])
    for name, values in percents.items():
        median = statistics.median(values)
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{name}: {median:.2f} % of a core ({spread}), at most {peaks[name]} KB", end="")
        if name == "pyspy-runner":
            print(f" of {MEMORY_KB} KB: {'within' if peaks[name] <= MEMORY_KB else 'ABOVE'}")
        else:
            print(f"; pyspy-runner takes {f'1/{median / ours:.1f}' if ours > 0 else 'none'} of it")


if __name__ == "__main__":
    main()
