def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def gen(n):
    for i in range(n):
        yield i * i


def loop():
    x = 0
    for v in gen(20000):
        x += v
    return x


def comp():
    return sum([i * i for i in range(30000)])


def exc():
    for i in range(5000):
        try:
            raise ValueError(i)
        except ValueError:
            pass


class K:
    def meth(self):
        return sorted(range(20000), key=lambda v: -v)


def main():
    k = K()
    while True:
        fib(18)
        loop()
        comp()
        exc()
        k.meth()


main()
