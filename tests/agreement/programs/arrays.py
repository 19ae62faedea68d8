"""Work inside of numpy, called from here."""

import numpy


def multiply(a):
    return a @ a


def order(a):
    return numpy.sort(a, axis=None)


def curve(a):
    b = numpy.sin(a)
    return b * a + 1


def reduce(a):
    return [row.sum() for row in a]


def main():
    a = numpy.random.default_rng(7).random((160, 160))
    print("ready", flush=True)
    while True:
        multiply(a)
        order(a)
        for _ in range(4):
            curve(a)
        reduce(a)


main()
