#!/usr/bin/env python3
"""Processor time a second and peak memory of pyspy-runner and py-spy at the same target, one after
the other. What starting costs is taken out: each runs for a short and for a long time."""

import argparse
import os
import subprocess
import tempfile
import time

MEMORY_KB = 4096  # that sampling may take


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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runner", required=True)
    parser.add_argument("--py-spy", required=True)
    parser.add_argument("--floor", help="sampler_floor, for what nobody can do without")
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("pid", type=int)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tools = {
            "pyspy-runner": [args.runner, "record", "--quiet", "--output", f"{folder}/a.txt"],
            "py-spy": [args.py_spy, "record", "--format", "raw", "--output", f"{folder}/b.txt"],
            "py-spy --nonblocking": [
                args.py_spy,
                "record",
                "--nonblocking",
                "--format",
                "raw",
                "--output",
                f"{folder}/c.txt",
            ],
        }
        if args.floor:
            tools["waking up and one call"] = [args.floor]
        for name, command in tools.items():
            common = ["--pid", str(args.pid), "--rate", str(args.rate), "--duration"]
            short, _ = run([*command, *common, "2"])
            whole, peak = run([*command, *common, str(args.seconds + 2)])
            bound = ""
            if name == "pyspy-runner":
                bound = f" of {MEMORY_KB} KB: {'within' if peak <= MEMORY_KB else 'ABOVE'}"
            percent = (whole - short) / args.seconds * 100
            print(f"{name}: {percent:.2f} % of a core, at most {peak} KB{bound}")


if __name__ == "__main__":
    main()
