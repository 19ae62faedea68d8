"""Keeps a web service busy: load.py HOST:PORT [CLIENTS]. A client asks one thing at a time."""

import http.client
import random
import sys
import threading
import time


def shop(address):
    connection = http.client.HTTPConnection(address, timeout=10)
    while True:
        try:
            currency = random.choice(["EUR", "USD", "JPY", "CHF"])
            connection.request(
                "GET", f"/checkout?items={random.randint(10, 80)}&currency={currency}"
            )
            connection.getresponse().read()
            time.sleep(0.002)
        except (OSError, http.client.HTTPException):
            connection.close()
            time.sleep(1)


if __name__ == "__main__":
    for _ in range((int(sys.argv[2]) if len(sys.argv) > 2 else 2) - 1):
        threading.Thread(target=shop, args=(sys.argv[1],), daemon=True).start()
    shop(sys.argv[1])
