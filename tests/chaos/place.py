"""The processes of a run: two serves, two workers, the simulator, the links between them; and the broker and the database, which are
reached through ./dev. Whatever is killed is started again by a supervisor, as in production."""

import asyncio
import glob
import json
import os
import signal
import time

WEBHOOK_SECRET = "whsec_chaos"
TOKEN = "chaos-token-of-at-least-32-characters"
ROLES = {"serve1": "serve", "serve2": "serve", "worker1": "worker", "worker2": "worker"}
SERVICES = ("amqp", "postgres", "stripe")
FAKETIME = next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), None)


class Place:
    """Where everything is. `history` takes what happens, an object a line."""

    def __init__(self, options, history):
        self.options, self.history = options, history
        self.root, self.dir = options.root, options.dir
        self.brokers = sorted(glob.glob(f"{self.dir}/broker/[123]")) or [f"{self.dir}/broker"]
        base = int(open(f"{self.dir}/ports").read())
        self.addresses = {name: f"127.0.0.1:{base + at}" for at, name in enumerate([*ROLES, "sim"])}
        self.serves = [self.addresses["serve1"], self.addresses["serve2"]]
        self.programs, self.stopping = {}, False
        self.proxy, self.links = None, {}
        self.kills, self.exits = 0, 0

    async def start(self):
        targets = {
            "amqp": ",".join(address_of(self.broker_env(broker)["AMQP_URL"]) for broker in self.brokers),
            "postgres": address_of(os.environ["DATABASE_URL"]),
            "stripe": self.addresses["sim"],
        }
        arguments = [f"{name}-{service}={targets[service]}" for name in ROLES for service in SERVICES]
        self.proxy = await asyncio.create_subprocess_exec(
            "python3", f"{self.root}/tests/chaos/proxy.py", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=open(f"{self.dir}/proxy.log", "ab"))
        self.note_pid("proxy", self.proxy.pid)
        for _ in arguments:
            name, port = (await self.proxy.stdout.readline()).decode().split()
            self.links[name] = int(port)
        self.programs["sim"] = Program(self, "sim", [f"{self.options.bin}/stripe-sim", "--no-log", "--listen", self.addresses["sim"]], {})
        for name, role in ROLES.items():
            self.programs[name] = Program(self, name, [f"{self.options.bin}/clawback", role], self.settings(name))
        await self.programs["sim"].start()
        await self.programs["serve1"].start()  # The first brings up the schema.
        for name in list(ROLES)[1:]:
            await self.programs[name].start()

    def settings(self, name):
        at = lambda service: f"127.0.0.1:{self.links[f'{name}-{service}']}"
        return {
            "DATABASE_URL": replaced(os.environ["DATABASE_URL"], at("postgres")),
            "AMQP_URL": replaced(self.broker_env(self.brokers[0])["AMQP_URL"], at("amqp")),
            "STRIPE_API_BASE": f"http://{at('stripe')}",
            "STRIPE_API_KEY": "sk_test_chaos",
            "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "STRIPE_MAX_RPS": "2000",
            "API_TOKEN": TOKEN,
            "HTTP_ADDR": self.addresses[name],
            "WORKER_HTTP_ADDR": self.addresses[name],
            "REFUNDS_SINCE": "2020-01-01",
            "DISPUTE_POLICY": "lost",
            # As in production, but in a hurry: minutes are seconds here.
            "REVERSAL_MAX_RETRIES": "12",
            "REVERSAL_BACKOFF_BASE": "1s",
            "REVERSAL_BACKOFF_MAX": "8s",
            "REVERSAL_CHECK_INTERVAL": "4s",
            "TRANSFER_RETRY_MAX_RETRIES": "12",
            "TRANSFER_RETRY_BACKOFF_BASE": "1s",
            "TRANSFER_RETRY_BACKOFF_MAX": "8s",
            "TRANSFER_RETRY_CHECK_INTERVAL": "4s",
            "SHUTDOWN_DELAY": "1s",
            "RUST_LOG": "info,reached=trace",
        }

    def broker_env(self, broker):
        base = int(open(f"{broker}/ports").read())
        host = open(f"{broker}/address").read().strip() if os.path.exists(f"{broker}/address") else "127.0.0.1"
        return {"AMQP_URL": f"amqp://dev:dev@{host}:{base}/%2f", "MANAGEMENT": f"{host}:{base + 1}"}

    def link(self, command, name):
        self.proxy.stdin.write(f"{command} {name}\n".encode())

    def note_pid(self, name, pid):
        """scripts/chaos.sh ends what these files name, should this process be killed."""
        with open(f"{self.dir}/{name}.pid", "w", encoding="utf-8") as file:
            file.write(str(pid))

    async def dev(self, *arguments):
        """Runs `./dev …` and returns whether it went well; what it says is in dev.log."""
        with open(f"{self.dir}/dev.log", "ab") as log:
            process = await asyncio.create_subprocess_exec(f"{self.root}/dev", *arguments, stdout=log, stderr=log)
            return await process.wait() == 0

    async def ctl(self, broker, *arguments):
        with open(f"{self.dir}/dev.log", "ab") as log:
            process = await asyncio.create_subprocess_exec(f"{self.root}/scripts/rabbitmqctl", broker, *arguments, stdout=log, stderr=log)
            return await process.wait() == 0

    async def stop(self):
        self.stopping = True
        for program in self.programs.values():
            program.signal(signal.SIGCONT)
            program.signal(signal.SIGKILL)
            if program.supervisor is not None:
                await program.supervisor
        if self.proxy is not None and self.proxy.returncode is None:
            self.proxy.kill()
            await self.proxy.wait()


class Program:
    """One process, with its supervisor."""

    def __init__(self, place, name, command, settings):
        self.place, self.name, self.command, self.settings = place, name, command, settings
        self.process, self.supervisor = None, None
        self.pause, self.skew, self.is_told = 0.5, 0, False

    async def start(self):
        await self.spawn()
        self.supervisor = asyncio.create_task(self.supervise())

    async def spawn(self):
        environment = {"PATH": os.environ["PATH"], "CHAOS_DIR": self.place.dir, **self.settings}
        if self.skew and FAKETIME:
            environment |= {"LD_PRELOAD": FAKETIME, "FAKETIME": f"{self.skew:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        log = open(f"{self.place.dir}/{self.name}.log", "ab")
        self.process = await asyncio.create_subprocess_exec(
            *self.command, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        log.close()
        self.place.note_pid(self.name, self.process.pid)

    async def supervise(self):
        while not self.place.stopping:
            code = await self.process.wait()
            if self.place.stopping:
                return
            is_told, self.is_told = self.is_told, False
            if not is_told:
                self.place.exits += 1
                self.place.history.add("fault", fault="exit", of=self.name, code=code)
            # One that ends by itself is left alone for a second, as every supervisor does.
            await asyncio.sleep(self.pause if is_told else 1)
            if not self.place.stopping:
                await self.spawn()

    def signal(self, number):
        """Returns whether there was a process to signal."""
        if self.process is None or self.process.returncode is not None:
            return False
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.is_told = True
        try:
            self.process.send_signal(number)
        except ProcessLookupError:
            return False
        return True

    def kill(self, pause=0.5, skew=0):
        self.pause, self.skew = pause, skew
        killed = self.signal(signal.SIGKILL)
        self.place.kills += killed
        return killed


class HistoryFile:
    """What happened, an object a line."""

    def __init__(self, path):
        self.file, self.started = open(path, "w", encoding="utf-8"), time.monotonic()

    def add(self, kind, /, **fields):
        fields = {"type": kind, "at": round(time.monotonic() - self.started, 2), **fields}
        self.file.write(json.dumps(fields, separators=(",", ":")) + "\n")

    def close(self):
        self.file.close()


def address_of(url):
    return url.split("://", 1)[1].rsplit("@", 1)[-1].split("/", 1)[0]


def replaced(url, address):
    return url.replace(address_of(url), address, 1)
