"""How long it takes until money comes back as fast as before, after each kind of kill. Only in a run without other faults (--recovery):
there both processes of a kind are killed at once, since of two one does the other's work."""

import asyncio
import collections
import statistics
import time

from web import NoAnswer

STEADY = 8.0    # Seconds whose rate is the one to come back to.
WINDOW = 2.0    # It is back when it holds that long.
ENOUGH = 0.8    # Of the rate before.
TIMES = 3
LONGEST = 60.0


class Samples:
    """How many reversals Stripe has made, ten times a second."""

    def __init__(self, place):
        self.place, self.points = place, collections.deque(maxlen=100_000)

    async def watch(self, web):
        while True:
            try:
                counts = await web.json("GET", self.place.addresses["sim"], "/_sim/counts", timeout=2)
                self.points.append((time.monotonic(), counts["reversals"]))
            except NoAnswer:
                pass
            await asyncio.sleep(0.1)

    def rate(self, begin, end):
        """Reversals a second between two times."""
        inside = [point for point in self.points if begin <= point[0] <= end]
        if len(inside) < 2 or inside[-1][0] - inside[0][0] < (end - begin) / 2:
            return 0.0
        return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])

    def end_of_silence(self, begin, end):
        """When the longest time without a reversal ended, between two times."""
        longest, ended, last, count = 0, begin, begin, None
        for at, reversals in self.points:
            if begin <= at <= end and reversals != count:
                if count is not None and at - last > longest:
                    longest, ended = at - last, at
                last, count = at, reversals
        return ended


async def recoveries(place, faults, samples, until):
    """Kills each kind several times; returns the seconds until the rate was back: {kind: {"median": …, "max": …, "times": …}}."""
    kinds = {"worker": ["worker1", "worker2"], "serve": ["serve1", "serve2"], "broker": None, "database": None}
    seconds = collections.defaultdict(list)
    await asyncio.sleep(STEADY + 2)
    for _ in range(TIMES):
        for kind, names in kinds.items():
            if time.monotonic() + STEADY + 10 > until:
                break
            before = samples.rate(time.monotonic() - STEADY, time.monotonic())
            killed = time.monotonic()
            if names:
                for name in names:
                    place.programs[name].kill(pause=0.5)
                place.history.add("fault", fault=f"kill_{kind}", of=names, kills=len(names))
            else:
                what = f"{place.dir}/postgres" if kind == "database" else place.brokers[0]
                await place.dev(kind, "kill", what)
                place.kills += 1
                await faults.again(kind, "start", what)
                place.history.add("fault", fault=f"kill_{kind}", of=kind, kills=1)
            seconds[kind].append(await back(samples, killed, before))
            await asyncio.sleep(STEADY)
    summary = lambda took: {"median": round(statistics.median(took), 1), "max": round(max(took), 1), "times": len(took)}
    return {kind: summary(took) for kind, took in seconds.items()}


async def back(samples, killed, before):
    """Seconds from the kill to the end of the longest silence after it, once the rate is what it was."""
    at = killed
    while await is_less(samples, at, WINDOW, ENOUGH * before) or at < killed + 3:
        at += 0.1
        if at > killed + LONGEST:
            return LONGEST
    return samples.end_of_silence(killed, at + WINDOW) - killed


async def is_less(samples, at, window, rate):
    """Whether fewer reversals a second came from then on."""
    while time.monotonic() < at + window + 0.2:
        await asyncio.sleep(0.1)
    return samples.rate(at, at + window) < rate
