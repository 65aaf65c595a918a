# shellcheck shell=bash
# ./dev bench: measurements, in release mode, against private services that live as long as the measurement. Used by ./dev.

# run_bench queues|whole|pages [ARGUMENTS]: the arguments go to the benchmark, see queues/benches/queues/main.rs and benches/*/main.rs.
run_bench() {
  local what=${1:-}
  [ $# -eq 0 ] || shift
  case $what in
    queues) bench_queues "$@" ;;
    whole) bench_whole "$@" ;;
    pages) bench_pages "$@" ;;
    *) die "bench: '$what' is not a benchmark; usage: ./dev bench queues [--peers] [--messages N] [--rounds N] [--memory JOBS]
            or: ./dev bench whole [--refunds N] [--peers] [--peer-jobs N]
            or: ./dev bench pages [--reversals N] [--requests N]" ;;
  esac
}

# It fails when the library is slower than it has to be. --peers compares others instead, on a broker of its own: queuey gets a quorum
# queue only where that is the vhost's default.
bench_queues() {
  need_cargo
  case " $* " in *" --peers "*) bench_queue_peers "$@" ;; *)
    [ -n "${AMQP_URL:-}" ] || bench_services broker
    cargo bench --locked --package clawback-queues --bench queues -- "$@" ;;
  esac
}

bench_queue_peers() {
  local manifest=benches/peers/queues/Cargo.toml target=$DEV_DIR/peers
  say "building apalis-amqp and queuey under $target (some minutes, once)"
  cargo build --quiet --locked --release --manifest-path "$manifest" --target-dir "$target"
  bench_services broker
  broker_ctl "$BENCH_DIR/broker" --quiet add_vhost peers --default-queue-type quorum
  broker_ctl "$BENCH_DIR/broker" --quiet set_permissions --vhost peers "$BROKER_USER" '.*' '.*' '.*'
  AMQP_URL=${AMQP_URL%/*}/peers "$target/release/clawback-queues-peers" "$@"
}

BENCH_PYTHON_PACKAGES=benches/peers/requirements.txt

# BENCH_CLAWBACK=PATH measures another build of the program. AMQP_URL and DATABASE_URL are not used: the services must be new, and their
# processes be known.
bench_whole() {
  local target=${CARGO_TARGET_DIR:-target}
  need_cargo
  [ -d /proc/self ] || die "bench whole: CPU time and memory are read from /proc, which only Linux has"
  case " $* " in *" --peers "*) bench_install_peers ;; esac
  cargo build --locked --release --package stripe-sim --package clawback --bins
  cargo bench --locked --package clawback --bench whole --no-run
  bench_on_two_cores
  bench_services broker postgres
  reserve_ports "$BENCH_DIR"
  export BENCH_DIR
  BENCH_SIMULATOR=$(readlink -f "$target/release/stripe-sim") BENCH_PORT=$(cat "$BENCH_DIR/ports") \
  BENCH_BROKER_PID=$(broker_pid "$BENCH_DIR/broker") BENCH_POSTGRES_PID=$(postgres_pid "$BENCH_DIR/postgres") \
    cargo bench --quiet --locked --package clawback --bench whole -- "$@"
}

# BENCH_PROFILE=dev measures what `cargo build` makes, which is slower; BENCH_CLAWBACK=PATH another build of the program.
bench_pages() {
  need_cargo
  cargo bench --locked --profile "${BENCH_PROFILE:-release}" --package clawback --bench pages --no-run
  bench_services broker postgres
  reserve_ports "$BENCH_DIR"
  export BENCH_DIR
  BENCH_PORT=$(cat "$BENCH_DIR/ports") cargo bench --quiet --locked --profile "${BENCH_PROFILE:-release}" --package clawback --bench pages -- "$@"
}

# What is compared is compared on two cores, on any machine.
bench_on_two_cores() {
  [ "$(nproc)" -gt 2 ] || return 0
  have taskset || die "bench whole measures on two cores, and this machine has $(nproc): taskset is needed (Debian, Ubuntu: util-linux)"
  taskset --all-tasks --cpu-list --pid 0,1 $$ >/dev/null
}

bench_install_peers() {
  local venv
  venv=$DEV_DIR/peers-$(sha256sum "$BENCH_PYTHON_PACKAGES" | cut -c 1-12)
  if [ ! -e "$venv/complete" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv" || die "python3 with venv is needed (Debian, Ubuntu: apt-get install python3-venv)"
    say "installing Dramatiq and Celery under $venv (once)"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$BENCH_PYTHON_PACKAGES"
    touch "$venv/complete"
  fi
  export BENCH_PYTHON=$venv/bin/python
}

# bench_services broker [postgres]: new and empty ones.
bench_services() {
  local part
  BENCH_DIR=$DEV_DIR/bench-$$
  trap bench_end EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  lock
  case " $* " in *" postgres "*) ensure_installed rabbitmq postgres ;; *) ensure_installed rabbitmq ;; esac
  unlock
  mkdir -p "$BENCH_DIR/broker"
  for part in "$@"; do
    case $part in
      broker)
        broker_start "$BENCH_DIR/broker" || exit 1
        eval "$(broker_env "$BENCH_DIR/broker")" ;;
      postgres) # with PostgreSQL's own settings: a commit waits for the disk
        postgres_start "$BENCH_DIR/postgres" -c shared_preload_libraries=pg_stat_statements -c pg_stat_statements.max=10000 || exit 1
        eval "$(postgres_env "$BENCH_DIR/postgres")" ;;
    esac
  done
}

# However it ends. A benchmark that was killed leaves its processes' ids behind; each leads its process group, and has BENCH_DIR in its
# environment. The logs of one that failed stay.
bench_end() {
  local status=$? file pid
  trap - EXIT
  trap '' INT TERM HUP # the stop itself is short, and must not stay half done
  for file in "$BENCH_DIR"/*.pid; do
    pid=$(cat "$file" 2>/dev/null) || continue
    if grep -qzxF "BENCH_DIR=$BENCH_DIR" "/proc/$pid/environ" 2>/dev/null; then kill -KILL -- "-$pid" 2>/dev/null || true; fi
  done
  broker_remove "$BENCH_DIR/broker"
  postgres_remove "$BENCH_DIR/postgres"
  release_ports "$BENCH_DIR"
  if [ "$status" = 0 ]; then rm -rf "$BENCH_DIR"; else say "what its processes said: $BENCH_DIR/*.log"; fi
  exit "$status"
}
