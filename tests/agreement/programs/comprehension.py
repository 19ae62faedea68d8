"""Comprehensions, which are functions of their own before 3.12, and functions given to builtins."""


def double(x):
    y = x
    for i in range(300):
        y += i
    return y


def lists(n):
    return [i * i for i in range(n)]


def nested(n):
    return [sum([j * j for j in range(1000)]) for i in range(n) if i % 2]


def dicts(n):
    return {i: str(i) for i in range(n)}


def sets(n):
    return {i % 97 for i in range(n)}


def calls(n):
    return [double(i) for i in range(n)]


def keys(n):
    return sorted(range(n), key=lambda v: sum(range(v)))


def maps(n):
    return list(map(double, range(n)))


def main():
    print("ready", flush=True)
    while True:
        lists(40000)
        nested(60)
        dicts(10000)
        sets(40000)
        calls(120)
        keys(300)
        maps(120)


main()
