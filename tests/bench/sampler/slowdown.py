#!/usr/bin/env python3
"""What sampling takes from the target: a loop counts its rounds, and spans without and with a
sampler take turns. Each span with one is compared with one of its two neighbours, in turn the one
before it and the one after it, so that nothing but the sampler makes them differ for good. There
are two measures: rounds a second, for which the machine must be idle, and rounds a second of the
target's own processor time, which does not see that the target was stopped. What "nothing" shows is
the error of the measurement.

pyspy-runner is stopped and continued for that, so that spans are short and there are many. py-spy
makes up for the samples that it missed, and may leave the target stopped, so it is started anew for
each span; those are longer and fewer."""

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
SETTLE = 0.7  # seconds in which a sampler starts
STEP = 0.01  # and in which it is stopped, or has gone
SHORT = 0.2  # seconds of a span
LONG = 2


class Target:
    def __init__(self, python, folder):
        path = f"{folder}/count"
        with open(path, "wb") as f:
            f.write(bytes(32))
        self.process = subprocess.Popen([python, f"{HERE}/programs/counter.py", path])
        with open(path, "rb") as f:
            self.shared = mmap.mmap(f.fileno(), 32, access=mmap.ACCESS_READ)

    def now(self):
        while True:
            rounds, wall, cpu, again = struct.unpack("=4Q", self.shared[:])
            if rounds == again and rounds:
                return rounds, wall, cpu

    def span(self, seconds):
        rounds, wall, cpu = self.now()
        time.sleep(seconds)
        rounds2, wall2, cpu2 = self.now()
        return (rounds2 - rounds) / (wall2 - wall), (rounds2 - rounds) / (cpu2 - cpu)


class Tool:
    def __init__(self, command):
        self.command, self.child = command, None

    def on(self):
        self.child = subprocess.Popen(
            self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(SETTLE)

    def off(self):
        if self.child.poll() is not None:
            raise SystemExit(f"{self.command[0]} ended early: {self.child.returncode}")
        self.child.send_signal(signal.SIGINT)
        self.child.wait()
        time.sleep(STEP)

    def end(self):
        pass


class Paused(Tool):
    def on(self):
        if not self.child:
            super().on()
        self.child.send_signal(signal.SIGCONT)
        time.sleep(STEP)

    def off(self):
        if self.child.poll() is not None:
            raise SystemExit(f"{self.command[0]} ended early: {self.child.returncode}")
        self.child.send_signal(signal.SIGSTOP)
        time.sleep(STEP)

    def end(self):
        self.child.send_signal(signal.SIGINT)
        self.child.send_signal(signal.SIGCONT)
        self.child.wait()


def interval(values):
    """Of the median, by the sign test: the narrowest ranks of at least 95 %."""
    n, outside, rank = len(values), 0, 0
    while outside + math.comb(n, rank) / 2**n <= 0.025:
        outside += math.comb(n, rank) / 2**n
        rank += 1
    values = sorted(values)
    return values[max(rank - 1, 0)], values[n - max(rank, 1)]


def samples_in(path):
    try:
        with open(path) as f:
            return sum(int(line.split()[-1]) for line in f)
    except FileNotFoundError:
        return 0


def measure(name, tool, target, pairs, seconds, output):
    plain, with_it = [target.span(seconds)], []
    for _ in range(pairs):
        tool.on()
        with_it.append(target.span(seconds))
        tool.off()
        plain.append(target.span(seconds))
    tool.end()
    print(f"{name}: {samples_in(output)} samples at last")
    for which, what in enumerate(("wall clock", "processor time")):
        changes = [(b[which] / plain[i + i % 2][which] - 1) * 100 for i, b in enumerate(with_it)]
        low, high = interval(changes)
        print(
            f"{name}, rounds by {what}: median {statistics.median(changes):+.2f} %, "
            f"95 % between {low:+.2f} and {high:+.2f} ({pairs} pairs of {seconds} s)",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runner")
    parser.add_argument("--py-spy")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=150, help="short ones; a tenth are long ones")
    args = parser.parse_args()
    if args.pairs < 100:
        parser.error("--pairs: fewer than 100 tell nothing")
    print(f"load of the machine before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as folder:
        target = Target(args.python, folder)
        common = ["record", "--pid", str(target.process.pid), "--rate", str(args.rate)]
        output = f"{folder}/out.txt"
        common += ["--duration", "3600", "--output", output, "--format", "raw"]
        try:
            time.sleep(1)
            measure("nothing", Paused(["sleep", "3600"]), target, args.pairs, SHORT, output)
            if args.runner:
                tool = Paused([args.runner, *common, "--quiet"])
                measure("pyspy-runner", tool, target, args.pairs, SHORT, output)
            for extra in ([], ["--nonblocking"]) if args.py_spy else ():
                name = " ".join(["py-spy", *extra])
                tool = Tool([args.py_spy, *common, *extra])
                measure(name, tool, target, args.pairs // 10, LONG, output)
        finally:
            target.process.kill()
            target.process.wait()


if __name__ == "__main__":
    main()
