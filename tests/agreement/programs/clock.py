"""Work whose stacks change all the time. Each part keeps its own time, and on SIGUSR1 the seconds
since the last one go to DIR/clock.json."""

import json
import pathlib
import signal
import sys
import time

SPENT = {}


def part(function):
    """Some milliseconds of it at a time, so that a sample that comes late still meets it."""

    def wrapper():
        start = time.perf_counter()
        end = start + 0.005
        while time.perf_counter() < end:
            function()
        name = function.__name__
        SPENT[name] = SPENT.get(name, 0) + time.perf_counter() - start

    return wrapper


def even(n):
    return n == 0 or odd(n - 1)


def odd(n):
    return n != 0 and even(n - 1)


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def squares(n):
    for i in range(n):
        yield i * i


class Tree:
    def __init__(self, depth):
        self.children = [Tree(depth - 1) for _ in range(3)] if depth else []

    def __iter__(self):
        yield self
        for child in self.children:
            yield from child


TREE = Tree(4)


@part
def recurse():
    fib(10)


@part
def alternate():
    even(150)


@part
def generate():
    sum(x + 1 for x in squares(200))


@part
def delegate():
    for _ in TREE:
        pass


@part
def catch():
    caught = 0
    for _ in range(50):
        try:
            int("x")
        except ValueError:
            caught += 1


def tell(*_):
    text = json.dumps(SPENT)
    SPENT.clear()
    path = pathlib.Path(sys.argv[1])
    (path / "clock.new").write_text(text)
    (path / "clock.new").rename(path / "clock.json")


def main():
    signal.signal(signal.SIGUSR1, tell)
    print("ready", flush=True)
    while True:
        recurse()
        alternate()
        generate()
        delegate()
        catch()


main()
