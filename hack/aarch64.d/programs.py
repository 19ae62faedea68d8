"""Programs whose stacks are known: busy, sleepers, children, stack, ends. Lines that check.py asks
for carry a mark."""

import os
import sys
import threading
import time


def work(n):  # mark: work
    total = 0  # mark: work
    for i in range(n):  # mark: work
        total += i * i  # mark: work
    return total  # mark: work


def long():  # mark: long
    work(3000)  # mark: long


def short():  # mark: short
    work(1000)  # mark: short


def busy():  # mark: busy
    ready()  # mark: busy
    while True:  # mark: busy
        long()  # mark: busy
        short()  # mark: busy


def sleep():
    while True:
        time.sleep(100)


def sleepers():
    for _ in range(20):
        threading.Thread(target=sleep, daemon=True).start()
    busy()  # mark: sleepers


def children():
    for _ in range(2):
        if os.fork() == 0:
            busy()
    ready()
    os.wait()


def inner():
    ready()
    time.sleep(1000)  # mark: inner


class Some:
    def method(self):
        return [
            inner(),  # mark: method
            2,
        ]


def generator():
    yield 1
    yield Some().method()  # mark: generator


def deep(n):
    if n:
        return deep(n - 1)  # mark: deep
    for _ in generator():  # mark: loop
        pass


def stack():
    deep(30)  # mark: stack


def ends():
    ready()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        work(1000)


def ready():  # mark: ready
    os.write(1, b"ready\n")  # mark: ready


globals()[sys.argv[1]]()  # mark: main
