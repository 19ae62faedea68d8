"""One busy thread and three that sleep, each with a function of its own to tell them apart by.
With a number N as its argument, N threads in each of the three."""

import sys
import threading
import time


def compute():
    total = 0
    while True:
        for i in range(10000):
            total = (total * 31 + i) % 1000003


def sleeper_one():
    while True:
        time.sleep(3600)


def sleeper_two():
    threading.Event().wait()


def sleeper_three():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


if __name__ == "__main__":
    for function in (sleeper_one, sleeper_two, sleeper_three):
        for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
            threading.Thread(target=function, name=function.__name__, daemon=True).start()
    print("ready", flush=True)
    compute()
