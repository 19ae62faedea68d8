"""Threads that want the interpreter's lock all the time, each for work of its own."""

import threading


def add(n):
    x = 0
    for i in range(n):
        x += i
    return x


def text(n):
    return "".join([str(i) for i in range(n)])


def table(n):
    d = {}
    for i in range(n):
        d[i % 1000] = i
    return d


def forever(work, n):
    while True:
        work(n)


def main():
    for work in (add, text, table):
        threading.Thread(target=forever, args=(work, 20000), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


main()
