"""Work inside of numpy, called from here; in one thread: OpenBLAS's others never sleep, and where
they have all cores, `multiply` waits for whoever shares a core with a sampler."""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy  # noqa: E402


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
