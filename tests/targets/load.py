"""Keeps a web service busy: load.py HOST:PORT [CLIENTS [FILE]]. A client asks one thing at a time.
FILE is made when the first answer has come."""

import http.client
import pathlib
import random
import sys
import threading
import time


def shop(address, served):
    connection = http.client.HTTPConnection(address, timeout=3)
    while True:
        try:
            currency = random.choice(["EUR", "USD", "JPY", "CHF"])
            connection.request(
                "GET", f"/checkout?items={random.randint(10, 80)}&currency={currency}"
            )
            connection.getresponse().read()
            if served:
                pathlib.Path(served).touch()
                served = None
            time.sleep(0.002)
        except (OSError, http.client.HTTPException):
            connection.close()
            time.sleep(1)


def main(address, clients="2", served=None):
    for _ in range(int(clients) - 1):
        threading.Thread(target=shop, args=(address, served), daemon=True).start()
    shop(address, served)


if __name__ == "__main__":
    main(*sys.argv[1:])
