"""Functions that call themselves and one another, and work at every depth."""


def fib(n):
    x = 0
    for i in range(4000):
        x += i
    if n < 2:
        return x
    return fib(n - 1) + fib(n - 2)


def even(n):
    x = sum(range(20000))
    return odd(n - 1) if n else x


def odd(n):
    x = even(n - 1)
    return x + len([i for i in range(6000)])


def weigh(tree):
    weight = 0
    for child in tree:
        weight += weigh(child)
    for i in range(4000):
        weight += i % 2
    return weight + len(tree)


def grow(depth):
    return [grow(depth - 1) for _ in range(4)] if depth else []


def main():
    tree = grow(2)
    print("ready", flush=True)
    while True:
        fib(6)
        even(16)
        weigh(tree)


main()
