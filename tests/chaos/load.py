"""What buyers, banks and the marketplace do: payments, refunds, disputes, transfers that come late, refunds that come early. Each payment
is a story of its own, drawn from the seed; every event is sent until it is accepted, as Stripe does."""

import asyncio
import hashlib
import hmac
import json
import random
import time

from place import TOKEN, WEBHOOK_SECRET
from web import NoAnswer, Web

STORIES = {"plain": 56, "early": 12, "unregistered": 8, "late": 8, "created": 8, "disputed": 8}
REFUNDS_PER_PAYMENT = 2.0
AT_ONCE = 48
AUTHORIZATION = {"authorization": f"Bearer {TOKEN}"}


class Load:
    """Stories at `rate` refunds a second until it is told to stop."""

    def __init__(self, place, history, seed, rate):
        self.place, self.history, self.rate = place, history, rate
        self.rng = random.Random(f"{seed} load")
        self.web, self.turns = Web(), asyncio.Semaphore(AT_ONCE)
        self.number, self.events, self.running = 0, 0, set()
        self.latencies, self.wrong = [], []
        self.created = []  # Payments with transfers that Clawback creates.

    async def run(self, until):
        names, weights = list(STORIES), list(STORIES.values())
        beginning = time.monotonic()
        while time.monotonic() < until and not self.wrong:
            due = (time.monotonic() - beginning) * self.rate / REFUNDS_PER_PAYMENT
            while self.number < due:
                self.number += 1
                story = Story(self, self.number, self.rng.choices(names, weights)[0], random.Random(self.rng.random()))
                task = asyncio.create_task(story.tell())
                self.running.add(task)
                task.add_done_callback(self.ended)
            await asyncio.sleep(0.02)

    def ended(self, task):
        self.running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.wrong.append(task.exception())

    async def finish(self):
        """Until every story is at its end: what nobody took is sent again and again."""
        while self.running and not self.wrong:
            await asyncio.wait(self.running, return_when=asyncio.FIRST_COMPLETED)
        if self.wrong:
            raise self.wrong[0]

    async def sim(self, path, body):
        while True:
            try:
                return await self.web.json("POST", self.place.addresses["sim"], f"/_sim{path}", body, timeout=60)
            except NoAnswer as error:
                # A stopped simulator may have done it before it was stopped.
                if "must be new" in str(error) or "must not go from" in str(error) or "already" in str(error):
                    return None
                if " 400 " in str(error):
                    raise
                await asyncio.sleep(0.5)

    async def api(self, method, path, body, allowed=()):
        """Sends until it is taken; returns the status."""
        pause = 0.1
        while True:
            try:
                async with self.turns:
                    status, answer = await self.web.send(method, self.any_serve(), path, body, AUTHORIZATION)
                if 200 <= status < 300 or status in allowed:
                    return status
                if status < 500 and status not in (409, 429):
                    raise AssertionError(f"{method} {path}: {status} {answer.decode(errors='replace')}")
            except NoAnswer:
                pass
            await asyncio.sleep(pause)
            pause = min(pause * 2, 3)

    async def event(self, claim, kind, obj, rng):
        """One event, signed, until it is accepted; now and then twice, or by somebody who does not wait for the answer."""
        self.events += 1
        number = self.events
        if rng.random() < 0.05:
            await asyncio.gather(*(self.deliver(claim, number, kind, obj, rng) for _ in range(2)))
        else:
            await self.deliver(claim, number, kind, obj, rng)

    async def deliver(self, claim, number, kind, obj, rng):
        event = {
            "id": f"evt_chaos{number:08}", "object": "event", "api_version": "2026-08-26.dahlia", "created": int(time.time()),
            "data": {"object": obj}, "livemode": False, "pending_webhooks": 1, "request": {"id": None}, "type": kind,
        }
        body = json.dumps(event).encode()
        pause, timeout = 0.1, 0.01 if rng.random() < 0.03 else 8.0
        while True:
            at = int(time.time())
            signature = hmac.new(WEBHOOK_SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
            status, answer = None, b""
            try:
                async with self.turns:
                    began = time.monotonic()
                    headers = {"stripe-signature": f"t={at},v1={signature}"}
                    status, answer = await self.web.send("POST", self.any_serve(), "/webhooks/stripe", body, headers, timeout)
            except NoAnswer:
                pass
            self.history.add("sent", claim=claim, event=event["id"], status=status)
            if status is not None and 200 <= status < 300:
                self.latencies.append((began, time.monotonic() - began))
                return
            if status is not None and 400 <= status < 500:
                raise AssertionError(f"{kind} of {claim}: {status} {answer.decode(errors='replace')}")
            await asyncio.sleep(pause)
            pause, timeout = min(pause * 2, 3), 8.0

    def any_serve(self):
        return self.rng.choice(self.place.serves)


class Story:
    """One payment and what follows."""

    def __init__(self, load, number, kind, rng):
        self.load, self.kind, self.rng = load, kind, rng
        self.ref, self.charge, self.name = f"pi_chaos{number:07}", f"ch_chaos{number:07}", f"{number:07}"
        self.amount = rng.randrange(1_000, 30_000)
        self.left, self.claims = self.amount, 0
        sellers = rng.choice((1, 1, 2, 2, 3))
        share = self.amount * 9 // 10 // (sellers + 1)
        self.transfers = [self.transfer(position, share - rng.randrange(40)) for position in range(sellers)]
        if kind == "created":
            self.transfers[-1]["id"] = None
            load.created.append(self.ref)

    def transfer(self, position, amount):
        name = f"chaos{self.name}x{position}"
        return {"id": f"tr_{name}", "position": position, "amount": amount, "destination": f"acct_{name}"}

    async def tell(self):
        load, rng = self.load, self.rng
        existing = [{name: it[name] for name in ("id", "amount", "destination")} for it in self.transfers if it["id"]]
        await load.sim("/payments", {
            "amount": self.amount, "currency": "eur", "charge": self.charge, "payment_intent": self.ref,
            "transfer_group": f"group_{self.name}", "transfers": existing,
        })
        load.history.add("payment", ref=self.ref, amount=self.amount, story=self.kind, transfers=self.transfers)
        if self.kind == "early":
            await self.refund()
            await asyncio.sleep(rng.uniform(0, 2))
        if self.kind != "unregistered":
            # Where Stripe was asked meanwhile it is registered already, perhaps otherwise.
            await load.api("POST", "/v1/payments", self.registration(), allowed=(409,) if self.kind == "early" else ())
        for _ in range(rng.choice((1, 2, 3)) - (self.kind == "early")):
            await self.refund()
            await asyncio.sleep(rng.uniform(0, 1.5))
        if self.kind == "late":
            await self.late_transfer()
            await self.refund()
        if self.kind == "disputed":
            await self.dispute()

    def registration(self):
        transfers = [self.registered(transfer) for transfer in self.transfers]
        return {"payment_ref": self.ref, "amount": self.amount, "currency": "eur", "transfers": transfers}

    def registered(self, transfer):
        # Discovery names sellers by their accounts: a later registration is the same then.
        account = transfer["destination"]
        row = {"seller_id": account, "destination": account, "amount": transfer["amount"], "currency": "eur"}
        return row | ({"stripe_transfer_id": transfer["id"]} if transfer["id"] else {"create": True})

    async def late_transfer(self):
        transfer = self.transfer(len(self.transfers), self.amount // 12)
        there = {"id": transfer["id"], "amount": transfer["amount"], "currency": "eur", "destination": transfer["destination"]}
        await self.load.sim("/transfers", there)
        self.load.history.add("late_transfer", payment=self.ref, transfer=transfer)
        await self.load.api("POST", f"/v1/payments/{self.ref}/transfers", {"transfers": [self.registered(transfer)]})

    async def refund(self):
        amount = min(self.left, self.rng.choice((self.left, self.rng.randrange(1, self.amount))))
        if amount < 1:
            return
        self.left -= amount
        self.claims += 1
        ref = f"re_chaos{self.name}x{self.claims}"
        self.load.history.add("claim", ref=ref, kind="refund", payment=self.ref, amount=amount, ending="succeeded")
        await self.load.sim("/refunds", {"charge": self.charge, "id": ref, "amount": amount})
        obj = {
            "id": ref, "object": "refund", "amount": amount, "charge": self.charge, "created": int(time.time()), "currency": "eur",
            "metadata": {}, "payment_intent": self.ref, "reason": "requested_by_customer", "source_transfer_reversal": None,
            "status": "succeeded", "transfer_reversal": None, "balance_transaction": f"txn_{ref}",
        }
        await self.load.event(ref, "refund.created", obj, self.rng)
        if self.rng.random() < 0.02:
            self.load.history.add("ending", ref=ref, ending="failed")
            await self.load.sim(f"/refunds/{ref}/status", {"status": "failed"})
            self.left += amount
            await self.load.event(ref, "refund.failed", obj | {"status": "failed", "failure_reason": "unknown"}, self.rng)

    async def dispute(self):
        ref = f"du_chaos{self.name}"
        ending = self.rng.choice(("lost", "lost", "won"))
        self.load.history.add("claim", ref=ref, kind="dispute", payment=self.ref, amount=self.amount, ending=ending)
        await self.load.sim("/disputes", {"charge": self.charge, "id": ref})
        obj = {
            "id": ref, "object": "dispute", "amount": self.amount, "charge": self.charge, "created": int(time.time()), "currency": "eur",
            "payment_intent": self.ref, "reason": "fraudulent", "status": "needs_response", "metadata": {}, "balance_transactions": [],
        }
        await self.load.event(ref, "charge.dispute.created", obj, self.rng)
        await self.load.event(ref, "charge.dispute.funds_withdrawn", obj, self.rng)
        await self.load.sim(f"/disputes/{ref}/status", {"status": ending})
        await self.load.event(ref, "charge.dispute.closed", obj | {"status": ending}, self.rng)
