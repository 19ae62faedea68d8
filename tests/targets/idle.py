"""Sleeps, and nothing else."""

import time

if __name__ == "__main__":
    print("ready", flush=True)
    while True:
        time.sleep(3600)
