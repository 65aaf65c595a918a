# shellcheck shell=bash
# ./dev model, ./dev fuzz and ./dev mutants: what is shown beyond the tests. docs/proof.md says what each found. Used by ./dev.

CARGO_MUTANTS_VERSION=27.1.0

# run_model [NAME]: larger bounds than the tests have time for; only the scenarios whose names contain NAME.
run_model() {
  need_cargo
  MODEL_LARGE=${1:-all} cargo test --quiet --locked --package clawback --lib model:: -- --nocapture --test-threads 1
}

# run_fuzz [--minutes N]: each target that long, on inputs that no run before has tried.
run_fuzz() {
  local minutes=1
  while [ $# -gt 0 ]; do
    case "$1 ${2:-}" in
      "--minutes "[1-9]*) minutes=$2 ;;
      *) die "fuzz: '$1 ${2:-}' is not --minutes N" ;;
    esac
    shift 2
  done
  need_cargo
  export FUZZ_SECONDS=$((minutes * 60))
  cargo test --quiet --locked --package clawback --lib fuzz:: -- --nocapture --test-threads 1
  cargo test --quiet --locked --package clawback-queues --lib fuzz:: -- --nocapture
}

# What moves money or loses a message when one line of it is wrong.
MUTATED=(
  src/ledger/claims/split.rs src/ledger/status.rs src/ledger/calls/fold.rs src/worker/decision.rs
  src/worker/sight.rs src/stripe/outcome.rs queues/src/retry_policy.rs queues/src/acknowledge.rs
)

# run_mutants [FILE…]: changes one thing at a time in these files, and wants a unit test to fail for each. An hour for all of them.
run_mutants() {
  need_cargo
  local mutants=$DEV_DIR/tools/bin/cargo-mutants file package failed=0
  if have cargo-mutants; then mutants=cargo-mutants
  elif [ ! -x "$mutants" ]; then
    say "building cargo-mutants $CARGO_MUTANTS_VERSION (once; some minutes)"
    cargo install cargo-mutants --version "$CARGO_MUTANTS_VERSION" --locked --debug --quiet --root "$DEV_DIR/tools"
  fi
  mkdir -p "$DEV_DIR/mutants"
  # Nobody debugs a mutant; a folder of its own, so that neither build undoes the other.
  export CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=$DEV_DIR/mutants/target
  git diff --quiet HEAD -- || die "mutants: commit first, since files are changed in place and put back"
  [ $# -gt 0 ] || set -- "${MUTATED[@]}"
  for file in "$@"; do
    [ -f "$file" ] || die "mutants: $file does not exist"
    case $file in queues/*) package=clawback-queues ;; *) package=clawback ;; esac
    step "$file"
    # The fuzzers say nothing of what is right, the broken variants of the model are none of the product's, and those of parking:: need a broker.
    "$mutants" mutants --in-place --package "$package" --file "$file" --output "$DEV_DIR/mutants/${file//\//_}" \
      --timeout 120 --no-shuffle --cargo-arg=--lib -- -- --skip fuzz:: --skip parking:: --skip model::without --skip model::with_ || failed=1
  done
  return "$failed"
}
