def work():
    x = 0
    for i in range(200000):
        x += i * i % 7
    return x


def down(n):
    if n == 0:
        while True:
            work()
    return down(n - 1)


down(18)
