"""Generators, alone and through one another."""


def squares(n):
    for i in range(n):
        x = i
        for k in range(500):
            x += k * k
        yield x


def chain(n):
    yield from squares(n)
    for x in squares(n):
        if sum(range(x % 2000)) > 4:
            yield x * 2


class Tree:
    def __init__(self, depth):
        self.children = [Tree(depth - 1) for _ in range(3)] if depth else []

    def __iter__(self):
        yield sum(range(3000))
        for child in self.children:
            yield from child


def drain(it):
    n = 0
    for _ in it:
        n += 1
    return n


def expression(n):
    return sum(len(str(x) * 5000) for x in squares(n) if x % 3)


def send(n):
    def echo():
        got = 0
        while True:
            got = yield sum(range(got % 1000 + 2000))

    it = echo()
    next(it)
    for i in range(n):
        it.send(i)


def main():
    tree = Tree(4)
    print("ready", flush=True)
    while True:
        drain(squares(80))
        drain(chain(40))
        drain(tree)
        expression(80)
        send(80)


main()
