# shellcheck shell=bash
# The private RabbitMQ and PostgreSQL of ./dev: up, down, status, and "only while this command runs". Used by ./dev.
#
# AMQP_URL or DATABASE_URL in the environment: that one is used as it is, and nothing is started for it.

# In the folder: broker/, postgres/, env, users (a lock), temporary (there while nobody said `services up`).
services_dir() { if [ -n "${DEV_RABBITMQ:-}" ]; then echo "$DEV_DIR/with-rabbitmq$DEV_RABBITMQ"; else echo "$DEV_DIR"; fi; }

# One at a time starts or stops services in this checkout.
lock() { mkdir -p "$DEV_DIR"; if have flock; then exec 9>"$DEV_DIR/lock"; flock 9; fi; }
unlock() { exec 9>&-; }

# services_start [broker] [postgres]: starts what is not given and not up, and exports the URLs of what was asked for. All that can be used
# is in target/dev/env.
services_start() {
  local dir part broker_job='' postgres_job='' failed=''
  local -a wanted=()
  dir=$(services_dir)
  for part in "$@"; do
    case $part in
      broker) [ -n "${AMQP_URL:-}" ] || broker_running "$dir/broker" || wanted+=(rabbitmq) ;;
      postgres) [ -n "${DATABASE_URL:-}" ] || postgres_running "$dir/postgres" || wanted+=(postgres) ;;
    esac
  done
  ensure_installed "${wanted[@]}"
  mkdir -p "$dir"
  case " ${wanted[*]} " in *" rabbitmq "*)
    say "starting RabbitMQ …"
    broker_remove "$dir/broker" # from empty; the last run's data were kept for looking at, until now
    mkdir -p "$dir/broker"
    if [ "$(broker_kind)" = installed ]; then data_in_memory "$dir/broker"; fi
    broker_start "$dir/broker" & broker_job=$! ;;
  esac
  case " ${wanted[*]} " in *" postgres "*)
    say "starting PostgreSQL …"
    postgres_start "$dir/postgres" & postgres_job=$! ;;
  esac
  if [ -n "$broker_job" ]; then wait "$broker_job" || failed=1; fi
  if [ -n "$postgres_job" ]; then wait "$postgres_job" || failed=1; fi
  [ -z "$failed" ] || die "a service did not start, see above"
  services_env broker postgres >"$dir/env"
  eval "$(services_env "$@")"
}

services_env() { # [broker] [postgres]: lines that a shell can source, of those that are given or up
  local dir part
  dir=$(services_dir)
  for part in "$@"; do
    case $part in
      broker)
        if [ -n "${AMQP_URL:-}" ]; then
          printf 'export AMQP_URL=%q\n' "$AMQP_URL"
          printf 'export RABBITMQ_MANAGEMENT_URL=%q\n' "${RABBITMQ_MANAGEMENT_URL:-$(management_url "$AMQP_URL")}"
        elif broker_running "$dir/broker"; then broker_env "$dir/broker"; fi ;;
      postgres)
        if [ -n "${DATABASE_URL:-}" ]; then printf 'export DATABASE_URL=%q\n' "$DATABASE_URL"
        elif postgres_running "$dir/postgres"; then postgres_env "$dir/postgres"; fi ;;
    esac
  done
}

# management_url AMQP_URL: the same host and credentials at the management plugin's usual port.
management_url() {
  local rest=${1#*://} credentials=guest:guest
  rest=${rest%%/*}
  case $rest in *@*) credentials=${rest%@*}; rest=${rest##*@} ;; esac
  case $rest in \[*) rest=${rest%%]*}] ;; *) rest=${rest%%:*} ;; esac
  echo "http://$credentials@$rest:15672"
}

services_stop() { # DIR: data on disk and logs stay, for looking at, until the next start; containers would be in the way, and go
  if [ "$(cat "$1/broker/kind" 2>/dev/null)" = docker ]; then broker_remove "$1/broker"; else broker_stop "$1/broker" & fi
  if [ "$(cat "$1/postgres/kind" 2>/dev/null)" = docker ]; then postgres_remove "$1/postgres"; else postgres_stop "$1/postgres" & fi
  wait
  data_forget "$1/broker"
  data_forget "$1/postgres"
  rm -f "$1/temporary" "$1/env"
}

services_status() { # exit code 0 only if both can be used
  local dir status=0
  dir=$(services_dir)
  if [ -n "${AMQP_URL:-}" ]; then echo "RabbitMQ    AMQP_URL of the environment"
  elif broker_running "$dir/broker"; then
    echo "RabbitMQ    up    management UI: http://127.0.0.1:$(($(cat "$dir/broker/ports") + 1)) (user $BROKER_USER, password $BROKER_PASSWORD)"
  else echo "RabbitMQ    down"; status=1; fi
  if [ -n "${DATABASE_URL:-}" ]; then echo "PostgreSQL  DATABASE_URL of the environment"
  elif postgres_running "$dir/postgres"; then echo "PostgreSQL  up    $(postgres_env "$dir/postgres" | cut -d= -f2-)"
  else echo "PostgreSQL  down"; status=1; fi
  return $status
}

# services_for_this_command [broker] [postgres]: started if need be, and stopped when the last ./dev command that uses them ends, however it
# ends. What `./dev services up` started stays. Each user holds a shared lock on `users` (fd 7); who gets it alone is the last one.
services_for_this_command() {
  local dir
  dir=$(services_dir)
  mkdir -p "$dir"
  if have flock; then exec 7>"$dir/users"; flock -s 7; fi
  trap services_release EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  lock
  if ! broker_running "$dir/broker" && ! postgres_running "$dir/postgres"; then touch "$dir/temporary"; fi
  services_start "$@"
  unlock
}

services_release() {
  local status=$? dir
  trap - EXIT
  trap '' INT TERM HUP # the stop itself is short, and must not stay half done
  dir=$(services_dir)
  if [ -e "$dir/temporary" ] && { ! have flock || flock -n -x 7; }; then
    lock
    services_stop "$dir"
    unlock
  fi
  exit "$status"
}

# services_keep: what this command started outlives it.
services_keep() { rm -f "$(services_dir)/temporary"; }
