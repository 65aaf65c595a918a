#!/usr/bin/env python3
"""The driver of ./dev chaos: load, faults, calm, export, verdict. scripts/chaos.sh has started broker and database."""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time

from faults import Faults, schedule
from ledger import export, quiet, replay_failed
from load import Load
from oncall import on_call
from place import HistoryFile, Place
from recovery import Samples, recoveries

CALM = 90  # Seconds of --minutes that are kept for what was broken to heal.
QUIET_WITHIN = 400
STRIPE_FAULTS = 0.04


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True)
    parser.add_argument("--dir", required=True)
    parser.add_argument("--bin", required=True, help="the folder of clawback and stripe-sim")
    parser.add_argument("--minutes", type=float, default=3, help="all of it, about 90 s of calm included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=30, help="refunds a second")
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--without", default="", help="kinds of faults that are left out, comma-separated")
    parser.add_argument("--recovery", action="store_true", help="only kills, kind after kind, and how long each takes to recover from")
    options = parser.parse_args()
    options.without = [name for name in options.without.split(",") if name]
    return options


async def run(options):
    history = HistoryFile(f"{options.dir}/history.ndjson")
    place = Place(options, history)
    began = time.monotonic()
    try:
        await place.start()
        load = Load(place, history, options.seed, options.rate)
        await ready(place, load.web)
        samples = Samples(place)
        watching = asyncio.create_task(samples.watch(load.web))
        faults = Faults(place, load.web)
        operator = asyncio.create_task(on_call(place, load.web, faults)) if options.cluster else None
        until = time.monotonic() + max(options.minutes * 60 - CALM, 20)
        if options.recovery:
            kills = await measured(place, load, faults, until, samples)
        else:
            kills = {}
            await under_fire(options, place, load, faults, until)
        say(f"calm after {time.monotonic() - began:.0f} s; {load.number} payments, {place.kills} kills")
        await calm(place, load)
        watching.cancel()
        if operator is not None and not operator.cancel():
            operator.result()  # It ends only with an error.
        await export(place, load.web, history)
        history.add("run", seed=options.seed, seconds=round(time.monotonic() - began), cluster=options.cluster, rate=options.rate,
                    exits=place.exits, recovery_seconds=kills, repeat=repeat(options))
    finally:
        history.close()
        await place.stop()


async def ready(place, web):
    for address in list(place.addresses.values())[:4]:
        for _ in range(600):
            try:
                await web.json("GET", address, "/health/ready", timeout=2)
                break
            except Exception:  # pylint: disable=broad-except
                await asyncio.sleep(0.1)
        else:
            raise AssertionError(f"{address} did not become ready within a minute")


async def under_fire(options, place, load, faults, until):
    await load.sim("/random_faults", {"seed": options.seed, "share": STRIPE_FAULTS})
    plan = schedule(options.seed, until - time.monotonic() - 3, options.cluster, options.without)
    firing = asyncio.create_task(faults.run(plan))
    await load.run(until)
    await firing
    await faults.finish()
    await load.web.json("DELETE", place.addresses["sim"], "/_sim/faults")


async def measured(place, load, faults, until, samples):
    loading = asyncio.create_task(load.run(until))
    kills = await recoveries(place, faults, samples, until)
    await loading
    return kills


async def calm(place, load):
    """All is whole again: everything ends by itself, or an operator replays it."""
    await load.finish()
    for attempt in range(4):
        await quiet(place, load, QUIET_WITHIN)
        replayed = await replay_failed(place, load.web)
        if not replayed:
            return
        say(f"{replayed} that had failed permanently are replayed ({attempt + 1})")


def repeat(options):
    command = f"./dev chaos --minutes {options.minutes:g} --seed {options.seed} --rate {options.rate:g}"
    for name in ("cluster", "recovery"):
        command += f" --{name}" * getattr(options, name)
    return command + f" --without {','.join(options.without)}" * bool(options.without)


def say(text):
    print(f"chaos: {text}", file=sys.stderr, flush=True)


def main():
    options = arguments()
    asyncio.run(run(options))
    checker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "check.py")
    verdict = subprocess.run([sys.executable, checker, f"{options.dir}/history.ndjson"], stdout=subprocess.PIPE, check=False)
    print(verdict.stdout.decode(), end="", flush=True)
    if verdict.returncode == 0:
        json.loads(verdict.stdout)
    sys.exit(verdict.returncode)


if __name__ == "__main__":
    main()
