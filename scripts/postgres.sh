# shellcheck shell=bash
# One private PostgreSQL in a folder, for tests: start (always from empty), stop, kill, start again, remove. Used by `./dev services` and,
# for what must break a database, by `./dev database`.
#
# In the folder: ports (the first is used), kind (installed or docker), options, postgres.pid, postgres.log, data (the cluster, or a link).

PG_USER=dev PG_PASSWORD=dev # a superuser on loopback: tests make a database each
# PG_PASSWORD, hashed once instead of 4,096 times: the tests make thousands of connections.
# shellcheck disable=SC2016
PG_PASSWORD_HASH='SCRAM-SHA-256$1:Y2xhd2JhY2sgZm9yIHRlc3Rz$TNyizfIvKCwZonqRdT2/w5m4ydFUHeSZA0uU4LEgod8=:y4ftsO2jRDaLDnEf7UycqtunAoJl8rqdhnagzTqyLss='

postgres_env() { echo "export DATABASE_URL=postgres://$PG_USER:$PG_PASSWORD@127.0.0.1:$(cat "$1/ports")/postgres"; }
postgres_container() { echo "clawback-dev-$(cat "$1/ports")"; }

postgres_running() { # DIR
  case "$(cat "$1/kind" 2>/dev/null)" in
    docker) [ "$(docker inspect -f '{{.State.Running}}' "$(postgres_container "$1")" 2>/dev/null)" = true ] ;;
    *) ours "$1/postgres.pid" "port=$(cat "$1/ports" 2>/dev/null)" ;;
  esac
}

postgres_pid() { # DIR: the server's own process
  if [ "$(cat "$1/kind")" = docker ]; then docker inspect -f '{{.State.Pid}}' "$(postgres_container "$1")"; else cat "$1/postgres.pid"; fi
}

postgres_ready() { # DIR
  local port
  port=$(cat "$1/ports")
  if [ "$(cat "$1/kind")" = docker ]; then docker exec "$(postgres_container "$1")" pg_isready -q -h 127.0.0.1 2>/dev/null
  else "$(postgres_bin)/pg_isready" -q -h 127.0.0.1 -p "$port"; fi
}
postgres_ready_or_dead() { ! postgres_running "$1" || postgres_ready "$1"; }

# Test data: a power cut may take them, so nothing waits for the disk.
POSTGRES_FOR_TESTS=(-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=300 -c shared_buffers=64MB)

postgres_start() { # DIR [OPTION…]: without options as tests need it
  local dir=$1
  local -a options=("${@:2}")
  postgres_running "$dir" && return
  postgres_remove "$dir" # the last run's data were kept for looking at, until now
  mkdir -p "$dir"
  if [ ${#options[@]} = 0 ]; then
    options=("${POSTGRES_FOR_TESTS[@]}")
    if postgres_bin >/dev/null; then data_in_memory "$dir"; fi
  fi
  reserve_ports "$dir"
  printf '%s\n' "${options[@]}" >"$dir/options"
  if postgres_bin >/dev/null; then
    echo installed >"$dir/kind"
    postgres_initialize "$dir" || return 1
    postgres_run "$dir"
  else
    echo docker >"$dir/kind"
    docker run -d --name "$(postgres_container "$dir")" -p "127.0.0.1:$(cat "$dir/ports"):5432" -e POSTGRES_USER="$PG_USER" \
      -e POSTGRES_PASSWORD="$PG_PASSWORD" -e POSTGRES_DB=postgres postgres:17 postgres "${options[@]}" >/dev/null || return 1
  fi
  postgres_await "$dir"
}

postgres_await() { # DIR
  if wait_until 60 postgres_ready_or_dead "$1" && postgres_running "$1"; then return; fi
  say "PostgreSQL in $1 did not start. The end of its log:"
  if [ "$(cat "$1/kind")" = docker ]; then docker logs --tail 30 "$(postgres_container "$1")" >&2
  else tail -n 30 "$1/postgres.log" >&2; fi
  postgres_stop "$1"
  return 1
}

# postgres_again DIR: what was stopped or killed goes on with the same data, options and port.
postgres_again() {
  postgres_running "$1" && return
  if [ "$(cat "$1/kind" 2>/dev/null)" = docker ]; then docker start "$(postgres_container "$1")" >/dev/null || return 1
  else postgres_run "$1"; fi
  postgres_await "$1"
}

# postgres_as: fills the array `as` with how the server's programs are run. It refuses to be root: then it is the package's user, or nobody.
postgres_as() {
  local user=nobody
  as=(env -i PATH=/usr/bin:/bin LC_ALL=C.UTF-8)
  is_root || return 0
  if id postgres >/dev/null 2>&1; then user=postgres; fi
  as+=(setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups)
}

postgres_initialize() { # DIR
  local dir=$1 data=$1/data bin password
  local -a as
  postgres_as
  bin=$(postgres_bin)
  password=$(mktemp)
  echo "$PG_PASSWORD_HASH" >"$password"
  mkdir -p "$data"
  if is_root; then
    # A checkout in a closed folder (/root) is out of that user's reach: then the data go to /var/tmp.
    if ! "${as[@]}" test -x "$data"; then
      rmdir "$data"
      ln -s "$(mktemp -d /var/tmp/clawback-dev-postgres.XXXXXX)" "$data"
    fi
    chown "$("${as[@]}" id -u)" "$data/" "$password"
  fi
  data=$(readlink -f "$data")
  chmod 700 "$data"
  if ! (cd / && "${as[@]}" "$bin/initdb" -D "$data" -U "$PG_USER" --pwfile="$password" --auth=scram-sha-256 --encoding=UTF8 --no-sync) \
    >"$dir/initdb.log" 2>&1; then
    rm -f "$password"
    say "initdb failed:"
    cat "$dir/initdb.log" >&2
    return 1
  fi
  rm -f "$password"
}

postgres_run() { # DIR
  local -a as options
  postgres_as
  mapfile -t options <"$1/options"
  # By "port=" postgres_running knows this process as ours.
  spawn "$1/postgres.pid" "$1/postgres.log" "${as[@]}" "$(postgres_bin)/postgres" -D "$(readlink -f "$1/data")" -c port="$(cat "$1/ports")" \
    -c listen_addresses=127.0.0.1 -c unix_socket_directories= "${options[@]}"
}

# postgres_kill DIR: SIGKILL of the server and of all its processes, as when the machine is gone; the data stay as they are.
postgres_kill() {
  local pid child
  local -a children=()
  if [ "$(cat "$1/kind" 2>/dev/null)" = docker ]; then docker kill -s KILL "$(postgres_container "$1")" >/dev/null; return; fi
  postgres_running "$1" || return 1
  pid=$(cat "$1/postgres.pid")
  read -r -a children <"/proc/$pid/task/$pid/children" || true
  kill -KILL "$pid"
  for child in "${children[@]}"; do kill -KILL "$child" 2>/dev/null || true; done
  stop_ours "$1/postgres.pid" "port=$(cat "$1/ports")" KILL 5
  for child in "${children[@]}"; do wait_until 5 [ ! -e "/proc/$child" ] || true; done
}

postgres_stop() { # DIR: SIGINT is the fast shutdown: it ends sessions, and leaves clean data
  case "$(cat "$1/kind" 2>/dev/null)" in
    docker) docker stop "$(postgres_container "$1")" >/dev/null 2>&1 || true ;;
    installed) stop_ours "$1/postgres.pid" "port=$(cat "$1/ports")" INT 20 ;;
  esac
}

postgres_remove() { # DIR
  [ -s "$1/kind" ] || return 0 # nothing of ours
  postgres_stop "$1"
  if [ "$(cat "$1/kind")" = docker ]; then docker rm -f -v "$(postgres_container "$1")" >/dev/null 2>&1 || true; fi
  data_forget "$1"
  release_ports "$1"
  rm -rf "$1"
}
