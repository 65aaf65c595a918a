"""What the ledger says in the end, over its public HTTP API; and what an operator does about what failed."""

import asyncio
import json
import sys
import time

from load import AUTHORIZATION
from web import NoAnswer

OPERATOR = {"operator": "chaos", "reason": "all is whole again"}
BEGINNING = "2020-01-01T00:00:00Z"


async def ask(place, web, path, method="GET", body=None):
    """Any serve's answer, as JSON. Waits for one that can answer."""
    for attempt in range(60):
        try:
            return await web.json(method, place.serves[attempt % 2], path, body, AUTHORIZATION, timeout=120)
        except NoAnswer as error:
            last = error
            await asyncio.sleep(0.5)
    raise AssertionError(f"no answer in a minute: {last}")


async def still_open(place, load):
    """What is not at its end yet, in words."""
    web = load.web
    for what in ("reversals?status=pending", "refunds?status=unmatched", "disputes?status=unmatched"):
        rows = await ask(place, web, f"/v1/{what}&limit=1")
        if rows[what.split("?", maxsplit=1)[0]]:
            return what
    while load.created:
        payment = await ask(place, web, f"/v1/payments/{load.created[-1]}")
        if any(transfer["status"] in ("pending", "failed") for transfer in payment["transfers"]):
            return f"the transfers of payment {load.created[-1]}"
        load.created.pop()
    return None


async def quiet(place, load, within):
    """Until nothing is open any more."""
    until = time.monotonic() + within
    while what := await still_open(place, load):
        if time.monotonic() > until:
            return  # The checker says what is still open.
        await asyncio.sleep(1)
        if int(time.monotonic()) % 30 == 0:
            print(f"chaos: waiting for {what}", file=sys.stderr, flush=True)


async def replay_failed(place, web):
    """Operations on all that failed permanently; returns how many rows."""
    rows = 0
    for action in ("replay_reversals", "retry_transfers"):
        operation = await ask(place, web, "/v1/operations", "POST", {"action": action, "filter": {"since": BEGINNING}})
        if operation["items"]:
            rows += operation["items"]
            await ask(place, web, f"/v1/operations/{operation['id']}/start", "POST", OPERATOR)
            while (await ask(place, web, f"/v1/operations/{operation['id']}"))["state"] in ("previewed", "running"):
                await asyncio.sleep(0.3)
    return rows


async def export(place, web, history):
    """Writes what Stripe did and what the ledger says into the history."""
    theirs = await web.json("GET", place.addresses["sim"], "/_sim/ledger", timeout=120)
    for transfer in theirs["transfers"].values():
        reversals = [{"id": it["id"], "amount": it["amount"], "claim": it["metadata"].get("clawback_claim", "").removeprefix("stripe:"),
                      "key": it["idempotency_key"]} for it in transfer["reversals"] if it["status"] in (None, "succeeded")]
        history.add("stripe_transfer", id=transfer["id"], amount=transfer["amount"], destination=transfer["destination"],
                    created="clawback_transfer" in transfer["metadata"], reversals=reversals)
    payments = set()
    for kind in ("refund", "dispute"):
        cursor = ""
        while cursor is not None:
            page = await ask(place, web, f"/v1/{kind}s?limit=200{cursor}")
            for row in page[f"{kind}s"]:
                payments.add(row["payment_ref"])
                history.add("ledger_claim", ref=row[f"{kind}_ref"], id=row["id"], kind=kind, amount=row["amount"], status=row["status"],
                            reason=row["status_reason"], attention=row["attention"], reversals=[shown(it) for it in row["reversals"]])
            cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    turns = asyncio.Semaphore(8)

    async def payment(ref):
        async with turns:
            row = await ask(place, web, f"/v1/payments/{ref}")
        transfers = [{"id": it["id"], "stripe_id": it["stripe_transfer_id"], "destination": it["destination"], "amount": it["amount"],
                      "status": it["status"], "amount_reversed": it["amount_reversed"], "withheld": it["withheld"],
                      "reversals": [shown(reversal) for reversal in it["reversals"]]} for it in row["transfers"]]
        history.add("ledger_payment", ref=ref, id=row["transfers"][0]["id"], amount=row["amount"], transfers=transfers)

    await asyncio.gather(*(payment(ref) for ref in payments))
    status, body = await web.send("GET", place.serves[0], "/v1/history?format=ndjson&kind=change", headers=AUTHORIZATION, timeout=300)
    if status != 200:
        raise AssertionError(f"/v1/history answered {status}")
    for line in body.decode().splitlines():
        row = json.loads(line)
        history.add("change", id=row["entity_id"], **{"from": row["from_status"], "to": row["to_status"]}, actor=row["actor"])


def shown(reversal):
    why = " ".join(filter(None, (reversal["failure_code"], reversal["failure_message"])))
    return {"id": reversal["id"], "claim": reversal["refund_ref"], "amount": reversal["amount"], "amount_closed": reversal["amount_closed"],
            "status": reversal["status"], "stripe_id": reversal["stripe_reversal_id"], "reason": why}
