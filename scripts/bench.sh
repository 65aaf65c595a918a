# shellcheck shell=bash
# ./dev bench: measurements, in release mode, against a private broker that lives as long as the measurement. Used by ./dev.

# run_bench queues [ARGUMENTS]: the arguments go to the benchmark, see queues/benches/queues/main.rs.
run_bench() {
  local what=${1:-}
  [ "$what" = queues ] || die "bench: '$what' is not a benchmark; usage: ./dev bench queues [--messages N] [--rounds N] [--memory JOBS]"
  shift
  need_cargo
  [ -n "${AMQP_URL:-}" ] || bench_broker
  cargo bench --locked --package clawback-queues --bench queues -- "$@"
}

bench_broker() {
  BENCH_BROKER=$DEV_DIR/bench-broker-$$
  trap 'broker_remove "$BENCH_BROKER"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  lock
  ensure_installed rabbitmq
  unlock
  mkdir -p "$BENCH_BROKER"
  broker_start "$BENCH_BROKER" || exit 1
  eval "$(broker_env "$BENCH_BROKER")"
}
