#!/usr/bin/env python3
"""What sampling takes from the target: a loop counts its rounds, and spans without and with a
sampler take turns. Each span with one is compared with the mean of its two neighbours. There are
two measures: rounds a second, for which the machine must be idle, and rounds a second of the
target's own processor time, which does not see that the target was stopped. What "nothing" shows is
the error of the measurement."""

import argparse
import math
import mmap
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SETTLE = 0.5  # seconds in which a sampler starts, or has gone


class Target:
    def __init__(self, python, folder):
        path = f"{folder}/count"
        with open(path, "wb") as f:
            f.write(bytes(8))
        self.process = subprocess.Popen([python, f"{HERE}/programs/counter.py", path])
        with open(path, "rb") as f:
            self.shared = mmap.mmap(f.fileno(), 8, access=mmap.ACCESS_READ)

    def now(self):
        with open(f"/proc/{self.process.pid}/schedstat") as f:
            cpu = int(f.read().split()[0]) / 1e9
        return struct.unpack_from("=Q", self.shared)[0], time.monotonic(), cpu

    def span(self, seconds):
        rounds, wall, cpu = self.now()
        time.sleep(seconds)
        rounds2, wall2, cpu2 = self.now()
        return (rounds2 - rounds) / (wall2 - wall), (rounds2 - rounds) / (cpu2 - cpu)


def sampled(command, target, seconds):
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(SETTLE)
    span = target.span(seconds)
    if child.poll() is not None:
        raise SystemExit(f"{command[0]} ended early: {child.returncode}")
    child.send_signal(signal.SIGINT)
    child.wait()
    time.sleep(SETTLE)
    return span


def interval(values):
    """Of the median, by the sign test: the narrowest ranks of at least 95 %."""
    n, outside, rank = len(values), 0, 0
    while outside + math.comb(n, rank) / 2**n <= 0.025:
        outside += math.comb(n, rank) / 2**n
        rank += 1
    values = sorted(values)
    return values[max(rank - 1, 0)], values[n - max(rank, 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runner")
    parser.add_argument("--py-spy")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=3)
    args = parser.parse_args()
    if args.pairs < 6:
        parser.error("--pairs: fewer than 6 tell nothing")
    print(f"load of the machine before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as folder:
        target = Target(args.python, folder)
        common = ["record", "--pid", str(target.process.pid), "--rate", str(args.rate)]
        common += ["--duration", "3600", "--output", f"{folder}/out.txt", "--format", "raw"]
        tools = {"nothing": ["sleep", "3600"]}
        if args.runner:
            tools["pyspy-runner"] = [args.runner, *common, "--quiet"]
        if args.py_spy:
            tools["py-spy"] = [args.py_spy, *common]
            tools["py-spy --nonblocking"] = [args.py_spy, *common, "--nonblocking"]
        try:
            time.sleep(1)
            for name, command in tools.items():
                plain, with_it = [target.span(args.seconds)], []
                for _ in range(args.pairs):
                    with_it.append(sampled(command, target, args.seconds))
                    plain.append(target.span(args.seconds))
                for measure, what in enumerate(("wall clock", "processor time")):
                    changes = [
                        (b[measure] * 2 / (plain[i][measure] + plain[i + 1][measure]) - 1) * 100
                        for i, b in enumerate(with_it)
                    ]
                    low, high = interval(changes)
                    print(
                        f"{name}, rounds by {what}: median {statistics.median(changes):+.2f} %, "
                        f"95 % between {low:+.2f} and {high:+.2f} ({args.pairs} pairs)",
                        flush=True,
                    )
        finally:
            target.process.kill()
            target.process.wait()


if __name__ == "__main__":
    main()
