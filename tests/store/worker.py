"""A process that uses a store as a sidecar does, for tests in which it is killed or competes with another.

``python -m tests.store.worker enter URL PREFIX CALLS AMOUNT LIMIT`` admits concurrently and prints how many
got in. ``… live URL PREFIX CALLS AMOUNT SEED`` admits and ends calls at random and writes one line for each
thing that it knows to have happened, until it is killed: ``in ID``, ``out ID ACTUAL``, ``booked``.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from proxy.store.base import Claim, Hold, Store, UsageRecord
from proxy.store.factory import open_store

MONTH = "2026-11"


def say(line: str) -> None:
    """Write one line at once, past every buffer."""
    os.write(1, line.encode() + b"\n")


async def enter(store: Store, calls: int, amount: int, limit: int) -> None:
    """Admit ``calls`` calls at the same time; print how many got in."""
    claims = [Claim("quota", "t", "team", amount, limit, period=MONTH), Claim("rate", "t", "r", 1, 10**6, 60.0)]
    say("ready")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    verdicts = await asyncio.gather(*[store.admit(Hold(f"{os.getpid()}-{n}", claims)) for n in range(calls)])
    say(str(sum(verdict.admitted for verdict in verdicts)))
    # Its holds live as long as it does.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def live(store: Store, calls: int, amount: int, seed: int) -> None:
    """Begin and end calls at random until killed."""
    dice = random.Random(seed)
    running: list[Hold] = []
    for n in range(calls):
        hold = Hold(
            f"{seed}-{n}", [Claim("quota", "t", "team", amount, None, period=MONTH), Claim("slots", "t", "s", 1, None)]
        )
        say(f"try {hold.id}")
        await store.admit(hold)
        say(f"in {hold.id}")
        running.append(hold)
        while running and dice.random() < 0.6:
            ended = running.pop(dice.randrange(len(running)))
            actual = dice.randrange(amount)
            say(f"out {ended.id} {actual}")
            store.settle(ended, [actual, 0], UsageRecord(MONTH, "t", "u", "m", "f", "success", actual))
        if dice.random() < 0.1:
            await asyncio.sleep(0.002)
    say("done")
    await asyncio.sleep(60)


async def main() -> None:
    what, url, prefix, *numbers = sys.argv[1:]
    store = open_store(url, prefix=prefix, deadline=5.0)
    await store.start()
    await {"enter": enter, "live": live}[what](store, *map(int, numbers))
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main())
