"""Checks with Stripe's own SDK that the simulator looks like Stripe: objects, lists, idempotency, error classes.

Run by check_with_stripe_sdk with the simulator's base URL. Each check is independent and makes its own transfer.
"""

import json
import sys
import urllib.request

import stripe

BASE = sys.argv[1]
KEY = "sk_test_sdk"


def sim(path, body, method="POST"):
    """Asks the simulator's own door."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{BASE}/_sim/{path}", data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def fault(transfer, kind, **fields):
    sim("faults", {"transfer": transfer, "fault": {"kind": kind, **fields}})


def raises(error_class, call):
    """The error that the call raises, which must be of exactly this class."""
    try:
        value = call()
    except stripe.StripeError as error:
        assert type(error) is error_class, f"{type(error).__name__} instead of {error_class.__name__}: {error}"
        return error
    raise AssertionError(f"no {error_class.__name__} but {value}")


def new_transfer(amount=9000, **more):
    return stripe.Transfer.create(amount=amount, currency="eur", destination="acct_1", **more)


def check_transfer():
    transfer = new_transfer(transfer_group="order_1", metadata={"order": "1", "note": "a & b = ü"})
    again = stripe.Transfer.retrieve(transfer.id)
    assert isinstance(again, stripe.Transfer), type(again)
    assert again == transfer, (again, transfer)
    assert (again.amount, again.amount_reversed, again.reversed, again.currency) == (9000, 0, False, "eur"), again
    assert (again.destination, again.transfer_group, again.livemode) == ("acct_1", "order_1", False), again
    assert again.metadata.to_dict() == {"order": "1", "note": "a & b = ü"}, again.metadata
    assert again.last_response.headers["Request-Id"].startswith("req_")
    assert again.last_response.headers["Stripe-Version"] == stripe.api_version
    assert transfer.id in [listed.id for listed in stripe.Transfer.list(limit=100).auto_paging_iter()]


def check_creation():
    """As Clawback creates one: found again under its key, and in its group by its metadata."""

    def create(**more):
        key = "clawback-transfer-1-0"
        return new_transfer(transfer_group="pi_1", metadata={"clawback_transfer_id": "1"}, idempotency_key=key, **more)

    first, second = create(), create()
    assert first == second, (first, second)
    assert second.last_response.headers["Idempotent-Replayed"] == "true"
    raises(stripe.IdempotencyError, lambda: create(amount=1))
    listed = stripe.Transfer.list(transfer_group="pi_1", created={"gte": first.created}, limit=1)
    assert [of.metadata["clawback_transfer_id"] for of in listed.auto_paging_iter()] == ["1"], listed
    error = raises(
        stripe.InvalidRequestError,
        lambda: stripe.Transfer.create(amount=1, currency="eur", destination="somebody"),
    )
    assert (error.http_status, error.code, error.param) == (400, "resource_missing", "destination"), error
    fault("acct_1", "balance_insufficient")
    error = raises(stripe.InvalidRequestError, new_transfer)
    assert (error.http_status, error.code) == (400, "balance_insufficient"), error


def check_reversal_in_part():
    transfer = new_transfer()
    reversal = stripe.Transfer.create_reversal(
        transfer.id, amount=700, metadata={"reversal_id": "r1"}, idempotency_key=f"{transfer.id}-0"
    )
    assert isinstance(reversal, stripe.Reversal), type(reversal)
    assert (reversal.amount, reversal.currency, reversal.transfer) == (700, "eur", transfer.id), reversal
    assert reversal.metadata.to_dict() == {"reversal_id": "r1"}, reversal
    assert reversal.source_refund is None and reversal.id.startswith("trr_"), reversal
    assert "status" not in reversal, reversal
    assert stripe.Transfer.retrieve_reversal(transfer.id, reversal.id) == reversal
    transfer = stripe.Transfer.retrieve(transfer.id)
    assert (transfer.amount_reversed, transfer.reversed) == (700, False), transfer
    assert [of.id for of in transfer.reversals.data] == [reversal.id], transfer.reversals
    expanded = stripe.Transfer.create_reversal(transfer.id, amount=1, expand=["transfer"])
    assert expanded.transfer.amount_reversed == 701, expanded


def check_reversal_of_the_rest():
    transfer = new_transfer()
    stripe.Transfer.create_reversal(transfer.id, amount=700)
    assert stripe.Transfer.create_reversal(transfer.id).amount == 8300
    assert stripe.Transfer.retrieve(transfer.id).reversed is True
    error = raises(stripe.InvalidRequestError, lambda: stripe.Transfer.create_reversal(transfer.id, amount=1))
    assert "already fully reversed" in error.user_message, error
    assert (error.code, error.param, error.http_status) == (None, None, 400), error


def check_replay():
    transfer = new_transfer()

    def reverse(amount=700):
        return stripe.Transfer.create_reversal(transfer.id, amount=amount, idempotency_key=f"{transfer.id}-0")

    first, second = reverse(), reverse()
    assert first == second, (first, second)
    assert "Idempotent-Replayed" not in first.last_response.headers
    assert second.last_response.headers["Idempotent-Replayed"] == "true"
    assert second.last_response.idempotency_key == f"{transfer.id}-0"
    assert stripe.Transfer.retrieve(transfer.id).amount_reversed == 700
    error = raises(stripe.IdempotencyError, lambda: reverse(amount=800))
    assert error.http_status == 400, error


def check_auto_paging():
    transfer = new_transfer()
    ids = [stripe.Transfer.create_reversal(transfer.id, amount=1).id for _ in range(25)]
    page = stripe.Transfer.list_reversals(transfer.id, limit=10)
    assert (len(page.data), page.has_more) == (10, True), page
    assert [of.id for of in page.auto_paging_iter()] == ids[::-1]
    last = stripe.Transfer.list_reversals(transfer.id, limit=10, ending_before=ids[0])
    assert [of.id for of in last.data] == ids[10:0:-1], last
    assert [of.id for of in last.auto_paging_iter()] == ids[1:], "backwards, as the SDK pages with ending_before"
    shown = stripe.Transfer.retrieve(transfer.id).reversals
    assert (len(shown.data), shown.has_more) == (10, True), shown
    assert [of.id for of in shown.auto_paging_iter()] == ids[::-1]


def check_errors():
    transfer = new_transfer()

    def reverse(**more):
        return stripe.Transfer.create_reversal(transfer.id, amount=700, **more)

    error = raises(stripe.InvalidRequestError, lambda: stripe.Transfer.retrieve("tr_unknown"))
    assert (error.http_status, error.code, error.param) == (404, "resource_missing", "id"), error
    assert error.request_id.startswith("req_"), error
    error = raises(stripe.InvalidRequestError, lambda: stripe.Transfer.create_reversal(transfer.id, amount=9001))
    assert (error.http_status, error.code, error.param) == (400, None, "amount"), error
    error = raises(stripe.InvalidRequestError, lambda: reverse(unknown="1"))
    assert (error.code, error.param) == ("parameter_unknown", "unknown"), error
    error = raises(stripe.InvalidRequestError, lambda: stripe.Transfer.create_reversal(transfer.id, amount="x"))
    assert error.code == "parameter_invalid_integer", error
    error = raises(stripe.AuthenticationError, lambda: reverse(api_key="pk_live_wrong"))
    assert error.http_status == 401, error
    assert "pk_live_wrong" not in str(error), error

    # A fault's name and fields, the class, the status and the code.
    for kind, fields, error_class, status, code in [
        ("rate_limited", {"retry_after": 1}, stripe.RateLimitError, 429, "rate_limit"),
        ("lock_timeout", {}, stripe.RateLimitError, 429, "lock_timeout"),
        ("unauthorized", {}, stripe.AuthenticationError, 401, None),
        ("permission_denied", {}, stripe.PermissionError, 403, "more_permissions_required"),
        ("conflict_409", {}, stripe.APIError, 409, "idempotency_key_in_use"),
        ("balance_insufficient", {}, stripe.InvalidRequestError, 400, "balance_insufficient"),
        ("server_error", {}, stripe.APIError, 500, None),
        ("unavailable_html", {}, stripe.APIError, 503, None),
        ("garbage_200", {"applied": False}, stripe.APIError, 200, None),
        ("drop_before_apply", {}, stripe.APIConnectionError, None, None),
    ]:
        fault(transfer.id, kind, **fields)
        error = raises(error_class, reverse)
        # From the body, because the SDK's classes do not all take the code over.
        body = error.json_body if isinstance(error.json_body, dict) else {}
        got = error.http_status, body.get("error", {}).get("code")
        assert got == (status, code), (kind, got)
        if kind == "rate_limited":
            assert error.headers["Retry-After"] == "1", error.headers
    assert stripe.Transfer.retrieve(transfer.id).amount_reversed == 0


def check_the_sdks_own_retry():
    """The SDK retries a dropped connection with the same key, by itself, and so reverses once."""
    transfer = new_transfer()
    fault(transfer.id, "apply_then_drop_connection")
    stripe.max_network_retries = 2
    try:
        reversal = stripe.Transfer.create_reversal(transfer.id, amount=700)
    finally:
        stripe.max_network_retries = 0
    assert reversal.last_response.headers["Idempotent-Replayed"] == "true"
    assert stripe.Transfer.retrieve(transfer.id).amount_reversed == 700


def pay(**fields):
    return sim("payments", {"amount": 10_000, "currency": "eur", **fields})


def check_a_destination_charge():
    charge_id = pay(destination="acct_2", application_fee_amount=1_000)["id"]
    charge = stripe.Charge.retrieve(charge_id, expand=["transfer", "application_fee", "payment_intent"])
    assert isinstance(charge, stripe.Charge), type(charge)
    assert (charge.captured, charge.amount_captured, charge.amount_refunded) == (True, 10_000, 0), charge
    assert isinstance(charge.transfer, stripe.Transfer), charge
    assert (charge.transfer.source_transaction, charge.transfer.destination) == (charge_id, "acct_2"), charge
    assert isinstance(charge.application_fee, stripe.ApplicationFee), charge
    assert charge.transfer_data.destination == "acct_2", charge
    intent = stripe.PaymentIntent.retrieve(charge.payment_intent.id)
    assert isinstance(intent, stripe.PaymentIntent), type(intent)
    assert (intent.latest_charge, intent.status, intent.amount_received) == (charge_id, "succeeded", 10_000), intent
    deep = stripe.PaymentIntent.retrieve(intent.id, expand=["latest_charge.transfer"])
    assert deep.latest_charge.transfer.id == charge.transfer.id, deep

    reversal = stripe.Transfer.create_reversal(charge.transfer.id, amount=5_000, refund_application_fee=True)
    assert reversal.amount == 5_000, reversal
    assert stripe.Charge.retrieve(charge_id, expand=["application_fee"]).application_fee.amount_refunded == 500
    plain = new_transfer()
    error = raises(
        stripe.InvalidRequestError,
        lambda: stripe.Transfer.create_reversal(plain.id, amount=1, refund_application_fee=True),
    )
    assert (error.http_status, error.param) == (400, "refund_application_fee"), error


def check_separate_charges_and_transfers():
    transfers = [{"amount": amount, "destination": "acct_2"} for amount in (10, 20, 30)]
    charge_id = pay(transfer_group="order_sdk", transfers=transfers)["id"]
    listed = stripe.Transfer.list(transfer_group="order_sdk", limit=2)
    assert [of.amount for of in listed.auto_paging_iter()] == [30, 20, 10], listed
    assert [of.id for of in stripe.Charge.list(transfer_group="order_sdk").data] == [charge_id]


def check_refunds():
    charge_id = pay(destination="acct_2")["id"]
    sim("refunds", {"charge": charge_id, "amount": 4_000, "reverse_transfer": True})
    sim("refunds", {"charge": charge_id, "amount": 1, "status": "pending", "pending_reason": "insufficient_funds"})
    pending, reversed_one = stripe.Refund.list(charge=charge_id, limit=1).auto_paging_iter()
    assert isinstance(pending, stripe.Refund), type(pending)
    assert (pending.status, pending.pending_reason) == ("pending", "insufficient_funds"), pending
    expanded = stripe.Refund.retrieve(reversed_one.id, expand=["transfer_reversal", "charge"])
    assert isinstance(expanded.transfer_reversal, stripe.Reversal), expanded
    assert expanded.transfer_reversal.source_refund == reversed_one.id, expanded
    assert expanded.charge.amount_refunded == 4_001, expanded
    sim(f"refunds/{pending.id}/status", {"status": "failed", "failure_reason": "lost_or_stolen_card"})
    failed = stripe.Refund.retrieve(pending.id)
    assert (failed.status, failed.failure_reason) == ("failed", "lost_or_stolen_card"), failed
    by_intent = stripe.Refund.list(payment_intent=failed.payment_intent, created={"gte": failed.created})
    assert len(by_intent.data) == 2, by_intent


def check_captures():
    part = stripe.Charge.retrieve(pay(capture={"part": 6_000})["id"], expand=["refunds"])
    assert (part.captured, part.amount_captured, part.amount_refunded) == (True, 6_000, 4_000), part
    assert [of.amount for of in part.refunds.data] == [4_000], part
    void = pay(capture="later")["id"]
    sim(f"charges/{void}/void", {})
    void = stripe.Charge.retrieve(void)
    assert (void.captured, void.amount_captured, void.refunded) == (False, 0, True), void
    assert stripe.PaymentIntent.retrieve(void.payment_intent).status == "canceled"


def check_disputes():
    charge_id = pay()["id"]
    dispute_id = sim("disputes", {"charge": charge_id, "amount": 4_000, "fee": 1_500})["id"]
    dispute = stripe.Dispute.retrieve(dispute_id, expand=["charge"])
    assert isinstance(dispute, stripe.Dispute), type(dispute)
    assert (dispute.status, dispute.amount, dispute.charge.disputed) == ("needs_response", 4_000, True), dispute
    assert dispute.balance_transactions[0].net == -5_500, dispute
    sim(f"disputes/{dispute_id}/status", {"status": "won"})
    won = stripe.Dispute.list(charge=charge_id).data[0]
    assert (won.status, [of.amount for of in won.balance_transactions]) == ("won", [-4_000, 4_000]), won


def check_webhooks():
    """The SDK verifies the signatures and reads the objects."""
    charge_id = pay()["id"]
    refund = sim("refunds", {"charge": charge_id})
    webhooks = sim("webhooks", {"secret": "whsec_sdk"})
    events = [stripe.Webhook.construct_event(of["body"], of["signature"], "whsec_sdk") for of in webhooks]
    created = [of for of in events if of.type == "refund.created" and of.data.object.id == refund["id"]]
    assert len(created) == 1 and isinstance(created[0].data.object, stripe.Refund), created
    try:
        stripe.Webhook.construct_event(webhooks[0]["body"], webhooks[0]["signature"], "whsec_other")
        raise AssertionError("another secret is taken")
    except stripe.SignatureVerificationError:
        pass
    client = stripe.StripeClient(KEY)
    thin = sim("webhooks", {"secret": "whsec_sdk", "thin": True})[-1]
    notification = client.parse_event_notification(thin["body"], thin["signature"], "whsec_sdk")
    assert notification.type.startswith("v1."), notification
    old = sim("webhooks", {"secret": "whsec_sdk", "api_version": "2020-08-27"})
    listing = [json.loads(of["body"]) for of in old if of["type"] == "charge.refunded"][-1]
    assert listing["data"]["object"]["refunds"]["data"][0]["id"] == refund["id"], listing
    endpoint = sim("webhook_endpoints", {"url": "http://127.0.0.1:1/", "secret": "whsec_sdk"})
    assert endpoint["id"] in [of.id for of in stripe.WebhookEndpoint.list().auto_paging_iter()]


def check_strictness():
    for metadata, says in [
        ({"k" * 41: "v"}, "Metadata keys can have up to 40 characters"),
        ({"k": "v" * 501}, "Metadata values can have up to 500 characters"),
        ({"clawback[tr_1]": "5"}, "square brackets"),
        ({f"k{n}": "v" for n in range(51)}, "Metadata can have up to 50 keys"),
    ]:
        error = raises(stripe.InvalidRequestError, lambda metadata=metadata: new_transfer(metadata=metadata))
        assert error.http_status == 400 and says in error.user_message, error
    error = raises(stripe.InvalidRequestError, lambda: stripe.Transfer.create(amount=1, currency="xyz", destination="acct_1"))
    assert error.param == "currency" and error.user_message.startswith("Invalid currency: xyz."), error
    error = raises(stripe.InvalidRequestError, lambda: stripe.Refund.retrieve("re_unknown"))
    assert (error.http_status, error.code) == (404, "resource_missing"), error
    error = raises(stripe.InvalidRequestError, lambda: stripe.Refund.list(expand=["charge"]))
    assert error.param == "expand[]", error


def check_account_and_balance():
    assert stripe.Balance.retrieve().object == "balance"
    assert stripe.Account.retrieve().object == "account"


def main():
    # The SDK's version is chosen by this: it reads the shapes of the API version that Clawback names in its requests.
    assert stripe.api_version == "2026-08-26.dahlia", stripe.api_version
    stripe.api_base = BASE
    stripe.api_key = KEY
    stripe.max_network_retries = 0
    checks = [check for name, check in globals().items() if name.startswith("check_")]
    assert len(checks) >= 16, "the checks were not found"
    for check in checks:
        check()
        print(f"ok  {check.__name__.removeprefix('check_').replace('_', ' ')}")
    print(f"the simulator looks like Stripe to its SDK {stripe.VERSION} (API {stripe.api_version})")


main()
