#!/usr/bin/env python3
"""Samples Python programs with pyspy-runner and py-spy (--nonblocking) at once; fails where the
share of a function's own samples, with and without what it calls, differs by more than --points."""

import argparse
import collections
import pathlib
import re
import subprocess
import sys
import tempfile
import time


def load(path):
    own, total, lines = (collections.Counter() for _ in range(3))
    for text in path.read_text().splitlines():
        stack, count = text.rsplit(" ", 1)
        frames = stack.split(";")
        names = [re.sub(r":\d+\)$", ")", f) for f in frames]
        own[names[-1]] += int(count)
        lines[frames[-1]] += int(count)
        for name in set(names):
            total[name] += int(count)
    return own, total, lines, max(1, sum(own.values()))


def sample(args, python, program, folder):
    target = subprocess.Popen([python, program], stdout=subprocess.DEVNULL)
    ours, theirs = folder / "ours.txt", folder / "theirs.txt"
    common = ["--pid", str(target.pid), "--duration", str(args.seconds), "--rate", str(args.rate)]
    try:
        time.sleep(1)
        runs = [
            subprocess.Popen([args.runner, "record", *common, "--quiet", "--output", ours]),
            subprocess.Popen(
                [
                    args.py_spy,
                    "record",
                    *common,
                    "--nonblocking",
                    "--format",
                    "raw",
                    "--output",
                    theirs,
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ),
        ]
        if any([run.wait() for run in runs]):
            sys.exit(f"{python} {program}: a sampler failed")
    finally:
        target.kill()
        target.wait()
    return load(ours), load(theirs)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runner", required=True, help="pyspy-runner")
    parser.add_argument("--py-spy", required=True)
    parser.add_argument(
        "--python", action="append", required=True, help="interpreter; may be given often"
    )
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--points", type=float, default=3.0)
    parser.add_argument("programs", nargs="+")
    args = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for python in args.python:
            for program in args.programs:
                ours, theirs = sample(args, python, program, pathlib.Path(folder))
                for kind, what in enumerate(("own", "total", "line")):
                    differences = [
                        (abs(ours[kind][k] / ours[3] - theirs[kind][k] / theirs[3]) * 100, k)
                        for k in set(ours[kind]) | set(theirs[kind])
                    ]
                    worst, name = max(differences)
                    bad = worst > args.points
                    wrong += bad
                    print(
                        f"{'WRONG' if bad else 'ok'}: {python} {program}: {what}: at most"
                        f" {worst:.1f} points ({name}), {ours[3]} and {theirs[3]} samples"
                    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
