"""Works for some seconds and ends: exiting.py SECONDS [STATUS]"""

import sys
import time


def work_until(deadline):
    total = 0
    while time.monotonic() < deadline:
        total += sum(range(1000))
    return total


if __name__ == "__main__":
    print("ready", flush=True)
    work_until(time.monotonic() + float(sys.argv[1]))
    sys.exit(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
