"""A server whose workers are children of fork(), each with work of its own."""

import os
import threading


def parse(n):
    return [f"{i}={i * 2}".split("=") for i in range(n)]


def render(n):
    out = []
    for i in range(n):
        out.append(str(i).rjust(8))
    return "".join(out)


def serve(requests):
    for n in requests:
        parse(n)
        render(n)


def worker(size, parent):
    while os.getppid() == parent:
        serve([size] * 4)


def main():
    parent = os.getpid()
    for size in (2000, 1000, 500):
        if os.fork() == 0:
            worker(size, parent)
            os._exit(0)
    print("ready", flush=True)
    threading.Event().wait()


main()
