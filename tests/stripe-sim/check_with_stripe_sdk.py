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
    assert len(checks) >= 8, "the checks were not found"
    for check in checks:
        check()
        print(f"ok  {check.__name__.removeprefix('check_').replace('_', ' ')}")
    print(f"the simulator looks like Stripe to its SDK {stripe.VERSION} (API {stripe.api_version})")


main()
