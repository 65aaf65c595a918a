# shellcheck shell=bash
# ./dev test, ./dev check, ./dev demo and ./dev ui. Used by ./dev.

CARGO_DENY_VERSION=0.20.2

need_cargo() { have cargo || die "cargo is not there: install a Rust toolchain first"; }
step() { printf '\n── %s\n' "$*" >&2; }

# Without the lock of services.sh, so that a process that a test leaves behind keeps nothing locked.
run() { "$@" 7>&-; }

# run_tests [nextest arguments]: with arguments only nextest, which then picks the tests.
# shellcheck disable=SC2120  # run_checks hands none
run_tests() {
  need_cargo
  step "build"
  cargo build --workspace --bins --locked # the tests of crashes start the program itself
  services_for_this_command broker postgres
  lock # an installation must not run twice at the same time
  ensure_browser
  ensure_prometheus
  ensure_faketime
  ensure_axe
  unlock
  step "tests"
  # A snapshot that differs fails, and is shown; `INSTA_UPDATE=always ./dev test …` accepts what the program says now.
  export INSTA_UPDATE=${INSTA_UPDATE:-no}
  if cargo nextest --version >/dev/null 2>&1; then run cargo nextest run --workspace --locked "$@"
  elif [ $# -gt 0 ]; then die "arguments are for cargo-nextest, which is not installed; cargo test takes others: . target/dev/env; cargo test …"
  else run cargo test --workspace --locked --lib --bins --tests; fi
  [ $# -eq 0 ] || return 0
  step "examples in the documentation"
  run cargo test --workspace --doc --locked
  step "the simulator, driven by Stripe's own Python library"
  if have python3; then run tests/stripe-sim/check_with_stripe_sdk
  else say "LEFT OUT: python3 is not installed, which tests/stripe-sim/check_with_stripe_sdk needs"; fi
}

run_checks() {
  need_cargo
  step "format"
  cargo fmt --all --check
  step "clippy"
  cargo clippy --workspace --all-targets --locked -- -D warnings
  step "documentation"
  RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --workspace --locked
  # As docs.rs builds them.
  RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --package clawback-queues --package clawback-outbox --all-features --locked
  step "packages for crates.io, built from what they hold"
  cargo publish --dry-run --package clawback-queues --package clawback-outbox --locked --allow-dirty --quiet
  step "the libraries without their features"
  cargo check --package clawback-queues --no-default-features --locked
  local database
  for database in postgres sqlite; do
    cargo clippy --package clawback-outbox --no-default-features --features "$database" --locked -- -D warnings
    cargo clippy --package clawback-outbox --no-default-features --features "$database,sea-orm" --locked -- -D warnings
  done
  step "scripts"
  if have shellcheck; then shellcheck dev .ci/run scripts/*
  else say "LEFT OUT: shellcheck is not installed"; fi
  step "the checker of ./dev chaos finds what it is for"
  if have python3; then python3 tests/chaos/test_check.py --quiet; fi
  run_deny
  # The random worlds add to it what rare places they come to.
  export REACHED=$DEV_DIR/reached.log
  rm -f "$REACHED"
  # shellcheck disable=SC2119
  run_tests
  step "three minutes of chaos"
  if ! have python3; then say "LEFT OUT: python3 is not installed, which ./dev chaos needs"; return; fi
  (unset AMQP_URL DATABASE_URL RABBITMQ_MANAGEMENT_URL; run_chaos --minutes 3 --seed 1 --rate 15) 7>&-
  step "the rare places, all of which were reached"
  python3 tests/chaos/reached.py "$REACHED" "$DEV_DIR"/chaos/*.log
}

# Licenses, sources and bans need only the tree; the advisories need RustSec's database, which is fetched where it can be reached.
run_deny() {
  step "dependencies: bans, licenses, sources, advisories"
  local deny=$DEV_DIR/tools/bin/cargo-deny
  local -a checks=(bans licenses sources)
  if have cargo-deny; then deny=cargo-deny
  elif [ ! -x "$deny" ]; then
    say "building cargo-deny $CARGO_DENY_VERSION (once; a minute or two)"
    cargo install cargo-deny --version "$CARGO_DENY_VERSION" --locked --debug --quiet --root "$DEV_DIR/tools"
  fi
  if "$deny" --locked fetch db 2>"$DEV_DIR/advisories.log"; then checks+=(advisories)
  else say "LEFT OUT: advisories. RustSec's database cannot be fetched from here; see $DEV_DIR/advisories.log"; fi
  "$deny" --workspace --locked check --hide-inclusion-graph --show-stats "${checks[@]}"
}

run_demo() {
  need_cargo
  if [ ! -x "${CARGO_TARGET_DIR:-target}/debug/examples/demo" ]; then say "Compiling Clawback: some minutes the first time, seconds later on."; fi
  cargo build --locked --example demo
  services_for_this_command broker
  case " $* " in *" --keep "*) services_keep ;; esac
  run cargo run --quiet --locked --example demo -- "$@"
  case " $* " in *" --keep "*) say "RabbitMQ stays up; './dev services down' stops it." ;; esac
}

# run_ui [PAYMENTS]: the pages with sample data, until Ctrl-C.
run_ui() {
  need_cargo
  cargo build --locked --example ui
  services_for_this_command broker
  HTTP_ADDR=${HTTP_ADDR:-127.0.0.1:8080} run cargo run --quiet --locked --example ui -- "$@"
}
