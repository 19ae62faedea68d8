import mmap
import struct
import sys


def work():
    x = 0
    for i in range(500):
        x += i * i % 7
    return x


def main(path):
    with open(path, "r+b") as f:
        shared = mmap.mmap(f.fileno(), 8)
    done = 0
    while True:
        work()
        done += 1
        struct.pack_into("=Q", shared, 0, done)


main(sys.argv[1])
