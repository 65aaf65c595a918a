# shellcheck shell=bash
# What every script of ./dev shares: messages, waiting with a deadline, ports, and processes that are really ours.
# Sourced by ./dev, which sets ROOT; never run by itself.

DEV_DIR=${ROOT:?}/target/dev

say() { printf '%s\n' "$*" >&2; }
die() { printf 'dev: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }
docker_works() { have docker && docker info >/dev/null 2>&1; }

# as_root COMMAND…: through sudo where we are not root already.
as_root() {
  if is_root; then "$@"
  elif have sudo; then sudo "$@"
  else die "'$*' needs root, and there is no sudo: run it as root, then try again"; fi
}

# accepts PORT [HOST]: whether something listens there, on 127.0.0.1 if nothing else is said.
accepts() { (exec 8<>"/dev/tcp/${2:-127.0.0.1}/$1") 2>/dev/null; }

# speaks_amqp PORT [HOST]: sends AMQP's protocol header; a broker that is ready answers with a method frame, whose first byte is 1.
speaks_amqp() (
  exec 8<>"/dev/tcp/${2:-127.0.0.1}/$1" || exit 1
  printf 'AMQP\x00\x00\x09\x01' >&8 || exit 1
  read -r -t 2 -N 1 -u 8 byte || exit 1
  [ "$byte" = $'\x01' ]
) 2>/dev/null

# wait_until SECONDS COMMAND…: tries the command ten times a second; fails when the time is over.
wait_until() {
  local deadline=$((SECONDS + $1)); shift
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.1
  done
}

# data_in_memory DIR: DIR/data becomes a link into memory, where there are 4 GB to spare: nothing waits for the disk.
data_in_memory() {
  local free
  free=$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1) || return 0
  [ "${free:-0}" -ge 4000000 ] || return 0
  ln -s "$(mktemp -d /dev/shm/clawback-dev.XXXXXX)" "$1/data"
  chmod 711 "$1/data/" # PostgreSQL's user is another one
}

# data_forget DIR: deletes the data where they are in memory, or elsewhere behind a link.
data_forget() { [ ! -L "$1/data" ] || rm -rf "$(readlink -f "$1/data")"; }

# reserve_ports DIR: writes the first of ten free ports to DIR/ports, once: what starts again in DIR gets the same ones. The
# reservation is a folder, which only one of several callers at the same time can make.
reserve_ports() {
  local dir=$1 base port
  [ -s "$dir/ports" ] && return
  mkdir -p "$DEV_DIR/ports"
  for _ in $(seq 200); do
    base=$((20000 + RANDOM % 1200 * 10)) # below the range that systems hand out to clients
    mkdir "$DEV_DIR/ports/$base" 2>/dev/null || continue
    for port in $(seq "$base" $((base + 9))); do
      accepts "$port" && continue 2
    done
    echo "$base" >"$dir/ports"
    return
  done
  die "no free ports found between 20000 and 32000; is $DEV_DIR/ports full of leftovers? Then remove it"
}

release_ports() {
  [ -s "$1/ports" ] || return 0
  rmdir "$DEV_DIR/ports/$(cat "$1/ports")" 2>/dev/null || true
  rm -f "$1/ports"
}

command_line() { if [ -r "/proc/$1/cmdline" ]; then tr '\0' ' ' <"/proc/$1/cmdline"; else ps -ww -o args= -p "$1"; fi 2>/dev/null; }

# ours PIDFILE MARK: whether the process is alive and its command line holds MARK. A pid alone may be somebody else's by now.
ours() {
  local pid
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] || return 1
  case "$(command_line "$pid")" in *"$2"*) return 0 ;; *) return 1 ;; esac
}
gone() { ! ours "$@"; }

# stop_ours PIDFILE MARK SIGNAL SECONDS: signals our process and waits until it is gone; SIGKILL after the deadline.
stop_ours() {
  local pid
  if ours "$1" "$2"; then
    pid=$(cat "$1")
    kill "-$3" "$pid" 2>/dev/null || true
    if ! wait_until "$4" gone "$1" "$2"; then
      kill -KILL "$pid" 2>/dev/null || true
      wait_until 5 gone "$1" "$2" || die "process $pid does not end"
    fi
  fi
  rm -f "$1"
}
