# shellcheck shell=bash
# ./dev chaos: two serves, two workers, a broker and a database of their own, and everything is broken all the time. ./dev soak: the same
# without faults, and what grows. Used by ./dev. The drivers and the checker are in tests/chaos; docs/chaos.md says what is
# done and what holds.

# run_chaos [ARGUMENTS]: the arguments go to tests/chaos/run.py. CHAOS_BIN=DIR takes clawback and stripe-sim from there, such as target/release.
# The history stays in target/dev/chaos.
run_chaos() {
  local broker=broker
  case " $* " in *" --cluster "*) broker=cluster ;; esac
  chaos_run "$broker" run.py "$@"
}

# run_soak [ARGUMENTS]: the arguments go to tests/chaos/soak.py. The picture and the table go to docs.
run_soak() {
  have psql || die "soak: psql is needed for the sizes of the tables (Debian, Ubuntu: apt-get install postgresql-client)"
  chaos_run broker soak.py --out docs "$@"
}

chaos_run() { # broker|cluster PROGRAM ARGUMENT…
  local bin=${CHAOS_BIN:-${CARGO_TARGET_DIR:-target}/debug} program=$2
  have python3 || die "python3 is needed (Debian, Ubuntu: apt-get install python3)"
  if [ -z "${CHAOS_BIN:-}" ]; then
    need_cargo
    cargo build --quiet --workspace --bins --locked
  fi
  chaos_services "$1"
  shift 2
  CHAOS_DIR=$CHAOS_DIR python3 "tests/chaos/$program" --root "$ROOT" --dir "$CHAOS_DIR" --bin "$(readlink -f "$bin")" "$@"
}

chaos_services() { # broker|cluster
  CHAOS_DIR=$DEV_DIR/chaos-$$
  trap chaos_end EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  lock
  ensure_installed rabbitmq postgres
  ensure_faketime
  unlock
  mkdir -p "$CHAOS_DIR/broker"
  reserve_ports "$CHAOS_DIR"
  postgres_start "$CHAOS_DIR/postgres" -c max_connections=300 & # a commit waits for the disk
  if [ "$1" = cluster ]; then cluster_start "$CHAOS_DIR/broker" apart >/dev/null
  else broker_start "$CHAOS_DIR/broker"; fi
  wait $! || die "chaos: a service did not start, see above"
  eval "$(postgres_env "$CHAOS_DIR/postgres")"
}

# However it ends. Each process of the run has CHAOS_DIR in its environment. What was written stays in target/dev/chaos, until the next run.
chaos_end() {
  local status=$? file pid
  trap - EXIT
  trap '' INT TERM HUP # the stop itself is short, and must not stay half done
  for file in "$CHAOS_DIR"/*.pid; do
    pid=$(cat "$file" 2>/dev/null) || continue
    if grep -qzxF "CHAOS_DIR=$CHAOS_DIR" "/proc/$pid/environ" 2>/dev/null; then kill -KILL "$pid" 2>/dev/null || true; fi
  done
  if [ -d "$CHAOS_DIR/broker/1" ]; then cluster_remove "$CHAOS_DIR/broker"; else broker_remove "$CHAOS_DIR/broker"; fi
  postgres_remove "$CHAOS_DIR/postgres"
  release_ports "$CHAOS_DIR"
  rm -rf "$DEV_DIR/chaos"
  mv "$CHAOS_DIR" "$DEV_DIR/chaos"
  [ "$status" = 0 ] || say "the history, and what the processes said: $DEV_DIR/chaos"
  exit "$status"
}
