import threading


def compute():
    while True:
        x = 0
        for i in range(20000):
            x += i * i % 7


for _ in range(8):
    threading.Thread(target=compute).start()
