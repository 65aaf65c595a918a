"""What is broken, when: a schedule from the seed, and how each fault is done."""

import asyncio
import base64
import os
import random
import signal
import urllib.parse

from place import FAKETIME, ROLES, SERVICES
from web import NoAnswer

GAP = 2.2
WEIGHTS = {
    "kill_serve": 26, "kill_worker": 26, "kill_role": 4, "kill_database": 6, "kill_broker": 3,
    "stop": 8, "stop_database": 2, "stop_broker": 2, "stop_stripe": 2,
    "purge": 5, "wipe": 2, "stall": 8, "cut": 8, "roll": 2, "alarm": 2, "skew": 4, "refuse_key": 2, "part": 3,
}
QUEUES = ("reversals", "transfers", "lookups")
# RabbitMQ 3.10 loses all its quorum queues, until it is started again, when it is stopped, or one of them is deleted, in its first seconds.
SETTLES = 10


def schedule(seed, seconds, cluster, without=()):
    """Faults as (second, kind, random number): each kind once, in random order, then by weight."""
    rng = random.Random(f"{seed} faults")
    weights = {kind: weight for kind, weight in WEIGHTS.items() if kind not in without and (cluster or kind != "part")}
    if cluster:
        weights["kill_broker"] = 8
    first = rng.sample(list(weights), len(weights))
    at, plan = 3.0, []
    while at < seconds:
        # Kills in between: what takes long leaves room for more.
        kind = first.pop() if first and len(plan) % 2 else rng.choices(list(weights), list(weights.values()))[0]
        plan.append((at, kind, rng.random()))
        at += rng.uniform(0.4, 1.6) * GAP
    return plan


class Faults:
    """Carries a schedule out. Faults may overlap; what is broken is whole again within seconds, or at `heal`."""

    def __init__(self, place, web):
        self.place, self.web, self.tasks, self.wrong = place, web, set(), []
        self.locks = {"broker": asyncio.Lock(), "database": asyncio.Lock()}

    async def run(self, plan):
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for at, kind, number in plan:
            await asyncio.sleep(max(0, begin + at - loop.time()))
            task = asyncio.create_task(self.do(kind, random.Random(number)))
            self.tasks.add(task)
            task.add_done_callback(self.ended)

    def ended(self, task):
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.wrong.append(task.exception())

    async def finish(self):
        while self.tasks:
            await asyncio.wait(self.tasks)
        if self.wrong:
            raise self.wrong[0]

    async def do(self, kind, rng):
        done = await getattr(self, kind)(rng)
        if done:
            kills = len(done) if isinstance(done, list) else 1
            self.place.history.add("fault", fault=kind, of=done, kills=kills if "kill" in kind or kind == "skew" else 0)

    async def alone(self, what, action):
        """Faults about the broker, or about the database, come one after the other."""
        async with self.locks[what]:
            return await action

    async def kill_serve(self, rng):
        return self.kill(rng.choice(("serve1", "serve2")), rng)

    async def kill_worker(self, rng):
        return self.kill(rng.choice(("worker1", "worker2")), rng)

    async def kill_role(self, rng):
        role = rng.choice(("serve", "worker"))
        return [name for name in ROLES if ROLES[name] == role and self.kill(name, rng)]

    def kill(self, name, rng):
        return name if self.place.programs[name].kill(pause=rng.uniform(0.1, 2)) else None

    async def skew(self, rng):
        """A process with a clock of its own, until it is killed for another reason."""
        if not FAKETIME:
            return None
        name, skew = rng.choice(list(ROLES)), rng.choice((-25, -4, 4, 25))
        return f"{name} {skew:+d} s" if self.place.programs[name].kill(skew=skew) else None

    async def stop(self, rng):
        return await self.freeze(rng.choice(list(ROLES)), rng.choice((1, 4, 4, 9)))

    async def stop_stripe(self, rng):
        return await self.freeze("sim", rng.uniform(1, 5))

    async def freeze(self, name, seconds):
        program = self.place.programs[name]
        process = program.process
        if not program.signal(signal.SIGSTOP):
            return None
        await asyncio.sleep(seconds)
        try:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
        except ProcessLookupError:
            pass
        return f"{name} for {seconds:.0f} s"

    async def stop_database(self, rng):
        return await self.alone("database", self.freeze_family("postgres", rng.uniform(1, 6)))

    async def stop_broker(self, rng):
        broker = rng.choice(self.place.brokers)
        return await self.alone("broker", self.freeze_family(os.path.relpath(broker, self.place.dir), rng.uniform(1, 6)))

    async def freeze_family(self, what, seconds):
        file = f"{self.place.dir}/{what}/{'postgres' if what == 'postgres' else 'node'}.pid"
        family = descendants(int(open(file, encoding="utf-8").read()))
        send(family, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        send(family, signal.SIGCONT)
        return f"{what} for {seconds:.0f} s"

    async def kill_database(self, rng):
        async def action():
            if not await self.place.dev("database", "kill", f"{self.place.dir}/postgres"):
                return None
            self.place.kills += 1
            await asyncio.sleep(rng.uniform(0, 3))
            await self.again("database", "start", f"{self.place.dir}/postgres")
            return "postgres"
        return await self.alone("database", action())

    async def kill_broker(self, rng):
        broker = rng.choice(self.place.brokers)

        async def action():
            if not await self.place.dev("broker", "kill", broker):
                return None
            self.place.kills += 1
            await asyncio.sleep(rng.uniform(0, 3))
            await self.again("broker", "start", broker)
            await asyncio.sleep(SETTLES)
            return os.path.relpath(broker, self.place.dir)
        return await self.alone("broker", action())

    async def again(self, *command):
        for _ in range(5):
            if await self.place.dev(*command):
                return
        raise AssertionError(f"./dev {' '.join(command)} failed five times; see dev.log")

    async def wipe(self, rng):
        """The queues are gone, as on a broker that was set up anew."""
        return await self.alone("broker", self.purge(rng, ""))

    async def purge(self, rng, what="/contents"):
        """All of a queue that waits for a worker is gone, and now and then all that waits for its time."""
        queue = rng.choice(QUEUES)
        for broker in self.place.brokers:
            management = self.place.broker_env(broker)["MANAGEMENT"]
            headers = {"authorization": "Basic " + base64.b64encode(b"dev:dev").decode()}
            try:
                names = [row["name"] for row in await self.web.json("GET", management, "/api/queues/%2F", headers=headers, timeout=5)]
                mine = [name for name in names if name == queue or not what or (rng.random() < 0.5 and name.startswith(f"{queue}.retry"))]
                for name in mine:
                    await self.web.send("DELETE", management, f"/api/queues/%2F/{urllib.parse.quote(name)}{what}", None, headers, 5)
                return " and ".join(mine)
            except NoAnswer:
                continue
        return None

    async def stall(self, rng):
        return await self.break_link("stall", rng, rng.choice((1, 4, 4, 12)))

    async def cut(self, rng):
        return await self.break_link("cut", rng, rng.uniform(0, 5))

    async def break_link(self, how, rng, seconds):
        link = f"{rng.choice(list(ROLES))}-{rng.choice(SERVICES)}"
        self.place.link(how, link)
        await asyncio.sleep(seconds)
        self.place.link("heal", link)
        return f"{link} for {seconds:.0f} s"

    async def roll(self, _rng):
        """A rolling restart: one after the other, each stopped in order."""
        for name in ROLES:
            program = self.place.programs[name]
            process, program.pause, program.skew = program.process, 0.2, 0
            if program.signal(signal.SIGTERM):
                try:
                    await asyncio.wait_for(process.wait(), 40)
                except TimeoutError:
                    program.kill()
        return "all"

    async def alarm(self, rng):
        """The broker's disk is full: it takes no message, and says so."""
        broker = rng.choice(self.place.brokers)

        async def action():
            await self.place.ctl(broker, "set_disk_free_limit", "100TB")
            await asyncio.sleep(rng.uniform(1, 5))
            await self.place.ctl(broker, "set_disk_free_limit", "50MB")
            return os.path.relpath(broker, self.place.dir)
        return await self.alone("broker", action())

    async def refuse_key(self, rng):
        """Stripe takes no key, or does not answer for a while: whatever comes is refused."""
        fault = rng.choice(({"kind": "unauthorized"}, {"kind": "unavailable_html"}, {"kind": "server_error_at_the_edge"}))
        await self.web.json("POST", self.place.addresses["sim"], "/_sim/faults", {"fault": fault, "times": 60})
        return fault["kind"]

    async def part(self, rng):
        """Two nodes of the broker do not hear each other."""
        one, other = rng.sample((1, 2, 3), 2)

        async def action():
            await self.place.dev("cluster", "part", f"{self.place.dir}/broker", str(one), str(other))
            await asyncio.sleep(rng.choice((3, 8, 20)))
            await self.place.dev("cluster", "join", f"{self.place.dir}/broker", str(one), str(other))
            return f"{one} and {other}"
        return await self.alone("broker", action())


def descendants(pid):
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children", encoding="utf-8") as file:
            for child in file.read().split():
                found += descendants(int(child))
    return found


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
