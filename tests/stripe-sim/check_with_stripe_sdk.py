"""Checks with Stripe's own SDK that the simulator looks like Stripe: objects, lists, idempotency, error classes.

Run by check_with_stripe_sdk with the simulator's base URL. Each check is independent and makes its own transfer. Whatever the
simulator answers in any of them must also have exactly the fields, of the types, that the SDK declares for its object.
"""

import copy
import json
import sys
import typing
import urllib.request

import stripe
from stripe._object_classes import get_object_class

BASE = sys.argv[1]
KEY = "sk_test_sdk"


def sim(path, body, method="POST"):
    """Asks the simulator's own door."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{BASE}/_sim/{path}", data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def fits(value, kind, path):
    """Fails unless the value is of the type that the SDK declares."""
    of, args = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, typing.ForwardRef):
        kind = getattr(stripe, kind.__forward_arg__)
    if kind is typing.Any:
        return
    if of is typing.Union:
        failures = []
        for one in args:
            try:
                return fits(value, one, path)
            except AssertionError as failure:
                failures.append(str(failure))
        # That of the object itself says more than that it is no id and not null.
        raise AssertionError(max(failures, key=lambda failure: (" has " in failure, len(failure.split()[0]))))
    if of is typing.Literal:
        assert value in args, f"{path} is {value!r} and not one of {args}"
    elif kind in (int, str, bool, float, type(None)):
        assert type(value) is kind, f"{path} is {value!r} and not {kind.__name__}"
    elif of is list:
        assert isinstance(value, list), f"{path} is {value!r} and no list"
        for at, one in enumerate(value):
            fits(one, args[0], f"{path}[{at}]")
    elif of is dict or getattr(of, "__name__", "") == "UntypedStripeObject":
        assert isinstance(value, dict), f"{path} is {value!r} and no object"
        for name, one in value.items():
            fits(one, args[-1], f"{path}.{name}")
    else:
        assert isinstance(value, dict), f"{path} is {value!r} and no object"
        shape(value, of or kind, path)


def shape(value, kind=None, path=""):
    """Fails unless the object has all fields that the SDK declares as never null, no other than it declares, and each as
    declared."""
    kind = kind or get_object_class("V1", value["object"])
    path = path or value.get("object", kind.__name__)
    if kind in (stripe.BalanceTransaction, stripe.Account) and set(value) == {"id", "object"}:
        return  # Expanded; the simulator keeps no more of it.
    if kind is stripe.ListObject:
        assert set(value) - {"total_count"} == {"object", "data", "has_more", "url"}, f"{path} has {sorted(value)}"
        for at, one in enumerate(value["data"]):
            shape(one, None, f"{path}.data[{at}]")
        return
    declared = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("stripe.") and base is not stripe.StripeObject:
            declared.update(base.__dict__.get("__annotations__", {}))
    declared = {name: of for name, of in declared.items() if typing.get_origin(of) is not typing.ClassVar and name[0] != "_"}
    assert set(value) <= set(declared), f"{path} has fields that the SDK does not know: {set(value) - set(declared)}"
    for name, of in declared.items():
        if name in value:
            fits(value[name], of, f"{path}.{name}")
        else:
            assert type(None) in typing.get_args(of), f"{path} has no {name}, which is never null"


class Checked(stripe.RequestsClient):
    """The SDK's own client; what is answered must have the SDK's shape."""

    answers = 0

    def request(self, method, url, headers, post_data=None):
        body, status, answered = super().request(method, url, headers, post_data)
        try:
            value = json.loads(body) if 200 <= status < 300 else None
        except ValueError:
            value = None  # A fault.
        if value is not None:
            shape(value)
            Checked.answers += 1
        return body, status, answered


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
    from_charge = new_transfer(amount=40, source_transaction=charge_id)
    again = stripe.Transfer.retrieve(from_charge.id, expand=["source_transaction"])
    assert (again.source_transaction.id, again.transfer_group) == (charge_id, "order_sdk"), again
    error = raises(stripe.InvalidRequestError, lambda: new_transfer(amount=10_001, source_transaction=charge_id))
    assert (error.http_status, error.param) == (400, "amount"), error


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


def check_a_wrong_shape_is_noticed():
    charge_id = pay(destination="acct_2", application_fee_amount=1_000)["id"]
    refund_id = sim("refunds", {"charge": charge_id, "amount": 10})["id"]
    charge = stripe.Charge.retrieve(charge_id, expand=["refunds", "transfer"]).to_dict()
    refund = stripe.Refund.retrieve(refund_id).to_dict()
    for what, value, wrong in [
        ("a field is unknown", charge, lambda of: of.update(amount_back=1)),
        ("a field is missing", charge, lambda of: of.pop("amount_captured")),
        ("text for a number", charge, lambda of: of.update(amount="10000")),
        ("a number for a flag", charge, lambda of: of.update(captured=1)),
        ("null where there is always a value", charge, lambda of: of.update(created=None)),
        ("another object", charge, lambda of: of["transfer"].update(object="charge")),
        ("an object of an object", charge, lambda of: of["transfer"].update(amount=None)),
        ("an object of a list", charge, lambda of: of["refunds"]["data"][0].update(amount=None)),
        ("a list without its end", charge, lambda of: of["refunds"].pop("has_more")),
        ("metadata that is no text", refund, lambda of: of.update(metadata={"n": 1})),
        ("a nested field", refund, lambda of: of["destination_details"]["card"].update(reference=7)),
    ]:
        shape(value)
        value = copy.deepcopy(value)
        wrong(value)
        try:
            shape(value)
        except AssertionError:
            continue
        raise AssertionError(f"it is not noticed: {what}")


def check_events_have_the_shapes_of_their_objects():
    charge_id = pay(destination="acct_2")["id"]
    refund_id = sim("refunds", {"charge": charge_id, "reverse_transfer": True})["id"]
    dispute_id = sim("disputes", {"charge": pay()["id"]})["id"]
    sim(f"disputes/{dispute_id}/status", {"status": "lost"})
    events = [json.loads(of["body"]) for of in sim("webhooks", {"secret": "whsec_sdk"})]
    for event in events:
        shape(event)
        shape(event["data"]["object"])
    kinds = {event["type"] for event in events}
    expected = {"refund.created", "charge.refunded", "transfer.created", "charge.dispute.created", "charge.dispute.closed"}
    assert expected <= kinds, kinds
    expanded = [json.loads(of["body"]) for of in sim("webhooks", {"secret": "whsec_sdk", "expanded": True})]
    of_refund = next(of for of in expanded if of["data"]["object"]["id"] == refund_id)
    shape(of_refund["data"]["object"])
    assert of_refund["data"]["object"]["charge"]["id"] == charge_id, of_refund


def check_thin_events_name_what_can_be_fetched():
    refund_id = sim("refunds", {"charge": pay()["id"]})["id"]
    client = stripe.StripeClient(KEY, base_addresses={"api": BASE}, http_client=Checked(), max_network_retries=0)
    thin = [of for of in sim("webhooks", {"secret": "whsec_sdk", "thin": True}) if refund_id in of["body"]]
    notification = client.parse_event_notification(thin[0]["body"], thin[0]["signature"], "whsec_sdk")
    assert (notification.type, notification.livemode) == ("v1.refund.created", False), notification
    related = notification.related_object
    assert (related.id, related.type, related.url) == (refund_id, "refund", f"/v1/refunds/{refund_id}"), related
    fetched = notification.fetch_related_object()
    assert (fetched.id, fetched.object) == (refund_id, "refund"), fetched
    try:
        client.parse_event_notification(thin[0]["body"], thin[0]["signature"], "whsec_other")
        raise AssertionError("another secret is taken")
    except stripe.SignatureVerificationError:
        pass


def main():
    # The SDK's version is chosen by this: it reads the shapes of the API version that Clawback names in its requests.
    assert stripe.api_version == "2026-08-26.dahlia", stripe.api_version
    stripe.api_base = BASE
    stripe.api_key = KEY
    stripe.max_network_retries = 0
    stripe.default_http_client = Checked()
    checks = [check for name, check in globals().items() if name.startswith("check_")]
    assert len(checks) >= 16, "the checks were not found"
    for check in checks:
        check()
        print(f"ok  {check.__name__.removeprefix('check_').replace('_', ' ')}")
    assert Checked.answers > 60, f"only {Checked.answers} answers were checked for their shapes"
    print(f"the simulator looks like Stripe to its SDK {stripe.VERSION} (API {stripe.api_version})")


main()
