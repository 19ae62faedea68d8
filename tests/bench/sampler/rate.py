#!/usr/bin/env python3
"""How many looks at eight threads are too late at 1,000 a second, beside py-spy's own word of how
far it falls behind. Fails when pyspy-runner misses more than 1 %."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MISSED_MAX = 1  # percent
LINE = re.compile(r"(\d+) samples of Python \S+ in (\d+) looks; (\d+) errors, (\d+) late")


def run(command):
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    text = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command[0]} failed: {text[-500:]}")
    return text, usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runner", required=True)
    parser.add_argument("--py-spy")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=20)
    args = parser.parse_args()
    target = subprocess.Popen([args.python, f"{HERE}/programs/eight.py"])
    print(f"load of the machine before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} processors")
    try:
        time.sleep(1)
        with tempfile.TemporaryDirectory() as folder:
            common = ["record", "--pid", str(target.pid), "--rate", str(args.rate)]
            common += ["--duration", str(args.seconds), "--output", f"{folder}/out.txt"]
            text, cpu = run([args.runner, *common])
            samples, looks, errors, late = map(int, LINE.search(text).groups())
            missed = late / (looks + late) * 100
            print(
                f"pyspy-runner: {looks} looks, {late} late = {missed:.2f} % missed; {samples} "
                f"samples, {errors} errors; {cpu / args.seconds * 100:.1f} % of a core"
            )
            for extra in ([], ["--nonblocking"]) if args.py_spy else ():
                text, cpu = run([args.py_spy, *common, "--format", "raw", *extra])
                behind = re.findall(r"([\d.]+)m?s behind in sampling", text)
                told = re.search(r"Samples: (\d+) Errors: (\d+)", text)
                print(
                    f"{' '.join(['py-spy', *extra])}: {told[1]} samples, {told[2]} errors; "
                    f"{'behind ' + str(len(behind)) + ' times' if behind else 'not behind'}; "
                    f"{cpu / args.seconds * 100:.1f} % of a core"
                )
    finally:
        target.kill()
        target.wait()
    return missed > MISSED_MAX


if __name__ == "__main__":
    sys.exit(main())
