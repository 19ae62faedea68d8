"""Exceptions raised, passed on, caught, and cleaned up after."""


class Guard:
    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        sum(range(1000))
        return kind is KeyError


def fail(i):
    x = i
    for k in range(500):
        x += k
    raise ValueError(x)


def catch(n):
    caught = 0
    for i in range(n):
        try:
            fail(i)
        except ValueError:
            for _ in range(200):
                caught += 1
    return caught


def through(depth):
    if depth == 0:
        raise LookupError(depth)
    try:
        through(depth - 1)
    finally:
        sum(range(500))


def unwind(n):
    for _ in range(n):
        try:
            through(20)
        except LookupError as e:
            str(e)


def swallow(n):
    for i in range(n):
        with Guard():
            sum(range(1000))
            raise KeyError(i)


def chain(n):
    for i in range(n):
        try:
            try:
                fail(i)
            except ValueError:
                text = str(i) * 10000
                raise RuntimeError(text) from None
        except RuntimeError:
            sum(range(2000))


def main():
    print("ready", flush=True)
    while True:
        catch(60)
        unwind(10)
        swallow(80)
        chain(40)


main()
