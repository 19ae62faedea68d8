"""asyncio: tasks that compute between awaits, a few coroutines deep, and timers."""

import asyncio


def compute(n):
    x = 0
    for i in range(n):
        x += i * i
    return x


async def query(n):
    await asyncio.sleep(0)
    return compute(n)


async def handle(n):
    rows = []
    for i in range(4):
        rows.append(await query(n))
        rows.append(str(i) * 200000)
    return rows


async def worker(n):
    while True:
        await handle(n)
        sum([v % 7 for v in range(n)])


async def ticker():
    while True:
        await asyncio.sleep(0.002)
        compute(8000)


async def gather():
    while True:
        await asyncio.gather(*[query(6000) for _ in range(4)])
        await asyncio.sleep(0.001)


async def main():
    print("ready", flush=True)
    await asyncio.gather(worker(10000), worker(20000), ticker(), gather())


asyncio.run(main())
