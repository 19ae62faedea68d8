"""Three tasks of asyncio that have names and take six, three and one tenth of the time, all by the
same functions, and one that asyncio numbers and that only waits for them."""

import asyncio
import time


def burn(ms):
    end = time.thread_time() + ms / 1000
    while time.thread_time() < end:
        pass


async def handle(ms):
    burn(ms)


async def serve(ms):
    while True:
        await handle(ms)
        await asyncio.sleep(0)


async def main():
    shares = {"orders: fetch": 6, "bills; ünïcode 🔥": 3, "log": 1}
    tasks = [asyncio.create_task(serve(ms), name=name) for name, ms in shares.items()]
    print("ready", flush=True)
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main())
