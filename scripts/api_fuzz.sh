# shellcheck shell=bash
# ./dev api-fuzz: Schemathesis against a running Clawback, made from its own OpenAPI document. Used by ./dev.
#
# Everything is private and disposable: broker, PostgreSQL, the simulator of Stripe, and Clawback with both tokens.

SCHEMATHESIS_VERSION=4.32.5

# run_api_fuzz [SCHEMATHESIS ARGUMENTS]: exit code 0 only if no answer was a 5xx or one that the document does not describe. The same
# seed finds the same; another one: --seed N.
run_api_fuzz() {
  local venv=$DEV_DIR/schemathesis-$SCHEMATHESIS_VERSION target=${CARGO_TARGET_DIR:-target}
  local -a schemathesis
  need_cargo
  api_fuzz_install "$venv"
  cargo build --locked --quiet --bin clawback
  cargo build --locked --quiet --package stripe-sim
  API_FUZZ=$DEV_DIR/api-fuzz-$$
  mkdir -p "$API_FUZZ"
  trap api_fuzz_stop EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  api_fuzz_services
  api_fuzz_start "$target"
  api_fuzz_seed "$venv/bin/python"
  schemathesis=("$venv/bin/schemathesis" run "$API_FUZZ_URL/openapi.json" --header "Authorization: Bearer $API_FUZZ_TOKEN"
    --seed 1 --max-examples 100 --workers 2 --rate-limit auto --warnings off --exclude-checks "$API_FUZZ_NOT_CHECKED" --no-color)
  step "Schemathesis $SCHEMATHESIS_VERSION at $API_FUZZ_URL"
  (cd "$API_FUZZ" && "${schemathesis[@]}" "$@") # where it leaves its cache
}

API_FUZZ_TOKEN=api-fuzz-may-do-everything
# What the document can't say: that a reference must be new (409), that names need more than spaces (422).
API_FUZZ_NOT_CHECKED=positive_data_acceptance

api_fuzz_install() { # VENV
  [ ! -e "$1/complete" ] || return 0
  rm -rf "$1"
  python3 -m venv "$1" || die "python3 with venv is needed (Debian, Ubuntu: apt-get install python3-venv)"
  say "installing Schemathesis $SCHEMATHESIS_VERSION under $1 (once)"
  "$1/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$SCHEMATHESIS_VERSION"
  touch "$1/complete"
}

api_fuzz_services() {
  lock
  ensure_installed rabbitmq postgres
  unlock
  mkdir -p "$API_FUZZ/broker"
  broker_start "$API_FUZZ/broker" || exit 1
  postgres_start "$API_FUZZ/postgres" || exit 1
  eval "$(broker_env "$API_FUZZ/broker")"
  eval "$(postgres_env "$API_FUZZ/postgres")"
}

# api_fuzz_start TARGET: the simulator and Clawback, each on a port that the system chooses and that its first lines tell.
api_fuzz_start() {
  "$1/debug/stripe-sim" --listen 127.0.0.1:0 --transfer tr_1:9000:eur:acct_1 >"$API_FUZZ/simulator.log" 2>&1 &
  API_FUZZ_SIMULATOR=$!
  wait_until 20 grep -q 'listens on' "$API_FUZZ/simulator.log" || die "the simulator did not start, see $API_FUZZ/simulator.log"
  HTTP_ADDR=127.0.0.1:0 STRIPE_API_KEY=sk_test_api_fuzz STRIPE_API_BASE=$(sed 's/.* //' "$API_FUZZ/simulator.log") \
    STRIPE_WEBHOOK_SECRET=whsec_api_fuzz HYPERSWITCH_WEBHOOK_SECRET=key_of_the_fuzzing API_TOKEN=$API_FUZZ_TOKEN API_READ_TOKEN=api-fuzz-may-read LOG_FORMAT=json RUST_LOG=info \
    "$1/debug/clawback" run 2>"$API_FUZZ/clawback.log" &
  API_FUZZ_CLAWBACK=$!
  wait_until 60 grep -q 'clawback is up' "$API_FUZZ/clawback.log" || { tail -n 20 "$API_FUZZ/clawback.log" >&2; die "Clawback did not start"; }
  API_FUZZ_URL=http://$(sed -n 's/.*clawback is up.*"addr":"\([^"]*\)".*/\1/p' "$API_FUZZ/clawback.log")
}

# api_fuzz_seed PYTHON: a payment with a refund under the ids of the document's examples, so that what reads finds something.
api_fuzz_seed() {
  "$1" - "$API_FUZZ_URL" "$API_FUZZ_TOKEN" <<'EOF'
import hashlib, hmac, json, sys, time, urllib.request

url, token = sys.argv[1:]

def post(path, body, headers):
    request = urllib.request.Request(url + path, body.encode(), {"Content-Type": "application/json", **headers})
    urllib.request.urlopen(request, timeout=30).read()

payment = {"payment_ref": "pi_1", "amount": 10000, "currency": "eur", "transfers": [
    {"seller_id": "s1", "stripe_transfer_id": "tr_1", "destination": "acct_1", "amount": 9000, "currency": "eur"}]}
post("/v1/payments", json.dumps(payment), {"Authorization": f"Bearer {token}"})
refund = {"id": "re_1", "object": "refund", "amount": 4000, "currency": "eur", "status": "succeeded", "payment_intent": "pi_1",
    "charge": "ch_1", "transfer_reversal": None}
event = json.dumps({"id": "evt_1", "object": "event", "type": "refund.created", "data": {"object": refund}})
now = int(time.time())
signature = hmac.new(b"whsec_api_fuzz", f"{now}.{event}".encode(), hashlib.sha256).hexdigest()
post("/webhooks/stripe", event, {"Stripe-Signature": f"t={now},v1={signature}"})
EOF
}

api_fuzz_stop() {
  local status=$? pid
  trap - EXIT
  trap '' INT TERM HUP # the stop itself is short, and must not stay half done
  for pid in "${API_FUZZ_CLAWBACK:-}" "${API_FUZZ_SIMULATOR:-}"; do
    if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
  done
  broker_remove "$API_FUZZ/broker"
  postgres_remove "$API_FUZZ/postgres"
  if [ "$status" -eq 0 ]; then rm -rf "$API_FUZZ"; else say "Clawback's log: $API_FUZZ/clawback.log"; fi
  exit "$status"
}
