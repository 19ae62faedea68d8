"""Threads that work without the interpreter's lock, and many that sleep."""

import hashlib
import threading

BYTES = bytes(range(256)) * 4096


def digest():
    hashlib.sha256(BYTES)


def digest_wide():
    hashlib.sha512(BYTES)


def digest_tree():
    for _ in range(2):
        hashlib.blake2b(BYTES)


def digest_old():
    hashlib.sha1(BYTES)


def work():
    while True:
        digest()
        digest_wide()
        digest_tree()
        digest_old()


def sleep():
    threading.Event().wait()


def main():
    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    for _ in range(12):
        threading.Thread(target=sleep, daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


main()
