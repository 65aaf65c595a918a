"""The operator on call, who follows the runbook: a queue that stays without a leader gets one when a node starts again."""

import asyncio
import itertools
import os

from load import AUTHORIZATION
from web import NoAnswer

LOOKS_EVERY = 20


async def on_call(place, web, faults):
    """Until it is cancelled. What is silent at two looks is no election."""
    before = set()
    for broker in itertools.cycle(place.brokers):
        while not before & (silent := await silent_queues(place, web)):
            before = silent
            await asyncio.sleep(LOOKS_EVERY)
        await faults.alone("broker", restart(place, faults, broker))
        place.history.add("fault", fault="restarted_for_a_leader", of=f"{os.path.relpath(broker, place.dir)} for {' and '.join(sorted(silent))}")
        before = set()


async def silent_queues(place, web):
    for serve in place.serves:
        try:
            problems = (await web.json("GET", serve, "/v1/queues", None, AUTHORIZATION))["problems"]
            return {problem["object"] for problem in problems if problem["property"] == "leader"}
        except NoAnswer:
            continue
    return set()


async def restart(place, faults, broker):
    await place.dev("broker", "stop", broker)
    await faults.again("broker", "start", broker)
