import sys
import threading
import time


def s():
    while 1:
        time.sleep(1000)


for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 50):
    threading.Thread(target=s, daemon=True).start()


def w():
    x = 0
    for i in range(100000):
        x += i
    return x


while 1:
    w()
