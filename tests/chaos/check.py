#!/usr/bin/env python3
"""Judges a chaos run from its history alone: check.py HISTORY.ndjson

The history says what was sent and answered, what Stripe (the simulator) really did, and what the ledger says in the end. This
program shares no code with Clawback: what each transfer owes is computed here anew, from docs/http.md. It prints one line of JSON
and exits with 1 when anything is lost, doubled or unexplained.

  lost         an accepted claim is not in the ledger, is still open, or was taken for too little, and nobody is told
  doubled      a transfer gave more than it owes, gave twice for one claim, or was created twice
  unexplained  a status that its history does not lead to, or ledger and Stripe disagree about a reversal
  visible      claims that take nothing, and reversals that failed permanently, each with its reason: no fault, but listed
"""

import collections
import json
import sys

MAX_SHOWN = 20
STANDING = {"succeeded", "lost"}
ENDED = {"matched", "failed", "nothing_to_reverse"}
OPEN_TRANSFERS = {"pending", "failed", "reversal_pending"}


class History:
    """The lines of a run, by what they are about."""

    def __init__(self, lines):
        self.run, self.answers = {}, collections.Counter()
        self.payments, self.claims, self.stripe = {}, {}, {}
        self.ledger_claims, self.ledger_payments, self.changes = {}, {}, collections.defaultdict(list)
        self.faults = collections.Counter()
        self.webhooks = 0
        for line in lines:
            getattr(self, "on_" + line["type"])(line)

    def on_run(self, line):
        self.run.update(line)

    def on_fault(self, line):
        self.faults[line["fault"]] += 1
        self.faults["kills"] += line.get("kills", 0)

    def on_payment(self, line):
        self.payments[line["ref"]] = line

    def on_late_transfer(self, line):
        self.payments[line["payment"]]["transfers"].append(line["transfer"])
        self.payments[line["payment"]]["late"] = self.payments[line["payment"]].get("late", 0) + 1

    def on_claim(self, line):
        self.claims[line["ref"]] = line

    def on_ending(self, line):
        self.claims[line["ref"]]["ending"] = line["ending"]

    def on_sent(self, line):
        self.webhooks += 1
        if line["status"] is not None and 200 <= line["status"] < 300:
            self.answers[line["claim"]] += 1

    def on_stripe_transfer(self, line):
        self.stripe[line["id"]] = line

    def on_ledger_claim(self, line):
        self.ledger_claims[line["ref"]] = line

    def on_ledger_payment(self, line):
        self.ledger_payments[line["ref"]] = line

    def on_change(self, line):
        self.changes[line["id"]].append((line["from"], line["to"]))


class Verdict:
    """What was found."""

    def __init__(self):
        self.found = collections.Counter()
        self.shown = []

    def add(self, kind, text):
        self.found[kind] += 1
        if kind != "visible" and len(self.shown) < MAX_SHOWN:
            self.shown.append(f"{kind}: {text}")


def each_claim_has_ended(history, verdict):
    for ref, claim in history.claims.items():
        row = history.ledger_claims.get(ref)
        if row is None:
            if history.answers[ref]:
                verdict.add("lost", f"{ref} was accepted, and the ledger does not have it")
            continue
        if row["amount"] != claim["amount"]:
            verdict.add("unexplained", f"{ref} is of {claim['amount']}, the ledger has {row['amount']}")
        if row["status"] not in ENDED:
            if row.get("reason"):
                verdict.add("visible", f"{ref} is {row['status']}: {row['reason']}")
            else:
                verdict.add("lost", f"{ref} is {row['status']} without a reason")
        elif claim["ending"] in STANDING and row["status"] != "matched":
            verdict.add("lost", f"{ref} stands, but is {row['status']}")
        elif claim["ending"] not in STANDING and row["attention"]:
            verdict.add("visible", f"{ref}: {row['attention']}")
        elif claim["ending"] not in STANDING and row["status"] == "matched":
            verdict.add("doubled", f"{ref} has ended as {claim['ending']}, but still takes")
        for reversal in row["reversals"]:
            if reversal["status"] == "pending":
                verdict.add("lost", f"{ref}: its reversal {reversal['id']} is still open")
            if reversal["status"] == "permanently_failed":
                verdict.add("visible", f"{ref}: {reversal['id']} failed: {reversal.get('reason')}")
                if not reversal.get("reason"):
                    verdict.add("lost", f"{ref}: its reversal {reversal['id']} failed without a reason")


def ledger_and_stripe_agree(history, verdict):
    recorded = {}
    for ref, row in history.ledger_claims.items():
        for reversal in row["reversals"]:
            if reversal["status"] == "reversed":
                recorded[reversal["stripe_id"]] = (ref, reversal["amount"] - reversal.get("amount_closed", 0))
    made = collections.Counter()
    for transfer in history.stripe.values():
        once = collections.Counter(reversal["claim"] for reversal in transfer["reversals"])
        for claim, times in once.items():
            if times > 1:
                verdict.add("doubled", f"{transfer['id']} was reversed {times} times for {claim}")
        for reversal in transfer["reversals"]:
            found = recorded.pop(reversal["id"], None)
            if found != (reversal["claim"], reversal["amount"]):
                about = f"{reversal['id']} of {transfer['id']}: {reversal['amount']} for {reversal['claim']}"
                verdict.add("unexplained", f"Stripe has {about}; the ledger has {found}")
        if transfer["created"]:
            made[transfer["destination"]] += 1
    for stripe_id, found in recorded.items():
        verdict.add("unexplained", f"the ledger has {stripe_id} for {found}, and Stripe has not")
    for destination, times in made.items():
        if times > 1:  # In a run each transfer has an account of its own.
            verdict.add("doubled", f"the transfer to {destination} was created {times} times")


def each_transfer_gave_what_it_owes(history, verdict):
    """By ratio: after refunds of R out of P the transfers have together given their sum times R / P, each in proportion to its
    amount; fractions of a minor unit go to any of them. Refunds and disputes together never take more than everything."""
    created = {transfer["destination"]: transfer for transfer in history.stripe.values() if transfer["created"]}
    claims_of = collections.defaultdict(list)
    for ref, claim in history.claims.items():
        claims_of[claim["payment"]].append((ref, claim))
    for payment_ref, payment in history.payments.items():
        claims = claims_of[payment_ref]
        row = history.ledger_payments.get(payment_ref)
        takes = [claim for ref, claim in claims if is_owed(history, ref, claim)]
        if row is None:
            if takes:
                verdict.add("lost", f"payment {payment_ref} owes for {len(takes)} claims, and the ledger does not have it")
            continue
        ended = {ref for ref, claim in claims if claim["ending"] not in STANDING}
        told = {ref for ref in ended if (history.ledger_claims.get(ref) or {}).get("attention")}
        asked = min(sum(claim["amount"] for claim in takes), payment["amount"])
        transfers = [weigh(history, created, payment, transfer, row, ended, told) for transfer in payment["transfers"]]
        whole = sum(transfer["amount"] for transfer in transfers)
        owed = whole * asked // payment["amount"]
        slack = payment.get("late", 0) + len(ended)
        taken, excused, stray = (sum(transfer[name] for transfer in transfers) for name in ("taken", "excused", "stray"))
        about = f"payment {payment_ref} owes {owed} of {whole} for {asked} of {payment['amount']}, gave {taken}"
        if taken < owed - slack - excused:
            verdict.add("lost", f"{about} (failed visibly: {excused})")
        if taken > owed + slack + stray:
            verdict.add("doubled", f"{about} (for claims that have ended since: {stray})")
        for transfer in transfers:
            share = transfer["amount"] * owed // whole
            about = f"{transfer['name']} of payment {payment_ref} owes about {share}, gave {transfer['taken']}"
            if transfer["taken"] > share + 1 + slack + transfer["stray"]:
                verdict.add("doubled", about)
            if transfer["taken"] < share - slack - transfer["excused"] - stray:
                verdict.add("lost", about)
            if transfer["status"] in OPEN_TRANSFERS:
                verdict.add("lost", f"{transfer['name']} of payment {payment_ref} is still {transfer['status']}")
            if transfer["amount_reversed"] != transfer["taken"]:
                about = f"{transfer['name']} of payment {payment_ref} gave {transfer['taken']}"
                verdict.add("unexplained", f"{about}, the ledger says {transfer['amount_reversed']}")


def is_owed(history, ref, claim):
    row = history.ledger_claims.get(ref)
    return claim["ending"] in STANDING and (row["status"] == "matched" if row else history.answers[ref] > 0)


def weigh(history, created, payment, transfer, row, ended, told):
    """What a transfer gave, at Stripe or by being paid less; what of that was for claims that have ended since, where somebody is
    told; and what failed visibly. Minor units."""
    is_it = lambda ours: (ours["stripe_id"], ours["destination"])[transfer["id"] is None] == (transfer["id"] or transfer["destination"])
    ours = next((ours for ours in row["transfers"] if is_it(ours)), None)
    name = transfer["id"] or transfer["destination"]
    there = history.stripe.get(transfer["id"]) if transfer["id"] else created.get(transfer["destination"])
    if ours is None:
        ours = {"amount_reversed": 0, "withheld": 0, "status": "unknown", "reversals": []}
    reversals = there["reversals"] if there else []
    taken = sum(reversal["amount"] for reversal in reversals)
    if transfer["id"] is None:  # The ledger's word counts only where Stripe paid that much less.
        taken += transfer["amount"] - there["amount"] if there else ours["withheld"]
    stray = sum(reversal["amount"] for reversal in reversals if reversal["claim"] in told)
    closed = [reversal for reversal in ours["reversals"] if reversal["status"] == "closed" and reversal["claim"] in ended]
    stray += sum(reversal["amount"] for reversal in closed)
    failed = [reversal for reversal in ours["reversals"] if reversal["status"] == "permanently_failed" and reversal.get("reason")]
    # A later claim may have counted on what a failed one was about to take, and did not: its attention says so.
    failed += [reversal for reversal in ours["reversals"] if reversal["status"] == "called_off" and reversal["claim"] in told]
    return {"name": name, "amount": transfer["amount"], "taken": taken, "stray": stray,
            "excused": sum(reversal["amount"] for reversal in failed),
            "status": ours["status"], "amount_reversed": ours["amount_reversed"]}


def history_explains_each_status(history, verdict):
    """The changes of a row are a way from nothing to its status: every status but the last is left as often as it is reached."""
    rows = [(row["id"], row["status"]) for row in history.ledger_claims.values()]
    rows += [(reversal["id"], reversal["status"]) for row in history.ledger_claims.values() for reversal in row["reversals"]]
    rows += [(transfer["id"], transfer["status"]) for row in history.ledger_payments.values() for transfer in row["transfers"]]
    for row_id, status in rows:
        balance = collections.Counter({None: 1, status: -1})
        for before, after in history.changes[row_id]:
            balance[before] -= 1
            balance[after] += 1
        if any(balance.values()) or not history.changes[row_id]:
            verdict.add("unexplained", f"{row_id} is {status}, and its history is {history.changes[row_id]}")


def judge(lines):
    """The verdict about a history, given as its lines' objects, and what was wrong in words."""
    history, verdict = History(lines), Verdict()
    for check in (each_claim_has_ended, ledger_and_stripe_agree, each_transfer_gave_what_it_owes, history_explains_each_status):
        check(history, verdict)
    kinds = collections.Counter(claim["kind"] for claim in history.claims.values())
    result = {
        "seed": history.run.get("seed"),
        "seconds": history.run.get("seconds"),
        "refunds": kinds["refund"],
        "disputes": kinds["dispute"],
        "accepted": sum(1 for ref in history.claims if history.answers[ref]),
        "webhooks": history.webhooks,
        "payments": len(history.payments),
        "reversals": sum(len(transfer["reversals"]) for transfer in history.stripe.values()),
        "kills": history.faults.pop("kills", 0),
        "faults": dict(sorted(history.faults.items())),
        "visible": verdict.found["visible"],
        "lost": verdict.found["lost"],
        "doubled": verdict.found["doubled"],
        "unexplained": verdict.found["unexplained"],
    }
    result.update({name: value for name, value in history.run.items() if name not in result and name != "type"})
    return result, verdict.shown


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: check.py HISTORY.ndjson")
    with open(sys.argv[1], encoding="utf-8") as file:
        result, shown = judge(json.loads(line) for line in file)
    print(json.dumps(result))
    for line in shown:
        print(line, file=sys.stderr)
    wrong = result["lost"] + result["doubled"] + result["unexplained"]
    if wrong:
        print(f"repeat it: {result.get('repeat', './dev chaos --seed %s' % result['seed'])}; history: {sys.argv[1]}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
