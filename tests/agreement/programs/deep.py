"""A stack of 500 frames, and work at its end."""


def add(n):
    x = 0
    for i in range(n):
        x += i * i % 7
    return x


def join(n):
    return "-".join([str(i) for i in range(n)])


def work():
    while True:
        add(20000)
        join(4000)


def down(n):
    if n == 0:
        work()
    return down(n - 1)


print("ready", flush=True)
down(496)
