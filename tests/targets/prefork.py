"""A parent that waits and N forked children that work: prefork.py [N]"""

import os
import sys


def handle_request(number):
    return sum(i * number for i in range(5000))


def worker(number):
    while True:
        handle_request(number)


def supervise(count):
    for number in range(count):
        if os.fork() == 0:
            worker(number)
    print("ready", flush=True)
    while True:
        os.wait()


if __name__ == "__main__":
    supervise(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
