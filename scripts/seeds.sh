# shellcheck shell=bash
# ./dev seeds: more random worlds than ./dev test has time for. Used by ./dev.

# run_seeds [--count N] [--from S] [--minutes M]
run_seeds() {
  local count=200 from=0 minutes=0 until batch
  while [ $# -gt 0 ]; do
    case "$1 ${2:-}" in
      "--count "[1-9]*) count=$2 ;;
      "--from "[0-9]*) from=$2 ;;
      "--minutes "[1-9]*) minutes=$2 ;;
      *) die "seeds: '$1 ${2:-}' is not one of --count N, --from S, --minutes M" ;;
    esac
    shift 2
  done
  need_cargo
  if [ "$minutes" -eq 0 ]; then seeds_batch "$from" "$count"; return; fi
  until=$((SECONDS + minutes * 60)) batch=100
  while [ "$SECONDS" -lt "$until" ]; do
    seeds_batch "$from" "$batch"
    from=$((from + batch))
    say "seeds below $from went well; $(((until - SECONDS) / 60)) minutes are left"
  done
}

# A failing seed prints the command that repeats it.
seeds_batch() {
  SEEDS_FROM=$1 SEEDS=$2 cargo test --quiet --locked --package clawback --test it -- for_every_seed --nocapture
}
