"""What a job does, in either framework: one POST to the simulator of Stripe, one guarded UPDATE."""

import os
import threading

import psycopg
import requests

own = threading.local()  # a connection of each kind for each thread, kept open


def reverse(framework, number):
    if not hasattr(own, "db"):
        own.http = requests.Session()
        own.http.headers["Authorization"] = "Bearer sk_test_bench"
        own.db = psycopg.connect(os.environ["BENCH_DATABASE_URL"], autocommit=True)
    key = f"{framework}-{number}-0"
    answer = own.http.post(
        f"{os.environ['BENCH_STRIPE']}/v1/transfers/tr_{framework}{number:08}/reversals",
        data={"amount": "1800", "metadata[reversal_id]": key, "metadata[refund_id]": key},
        headers={"Idempotency-Key": key},
        timeout=30,
    )
    answer.raise_for_status()
    updated = own.db.execute(
        f"UPDATE {framework}_jobs SET status = 'reversed' WHERE id = %s AND status = 'pending'", (number,)
    )
    if updated.rowcount != 1:
        raise RuntimeError(f"job {number} was not pending")
