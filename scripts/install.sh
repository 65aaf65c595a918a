# shellcheck shell=bash
# Where RabbitMQ, PostgreSQL, Chromium and Prometheus come from: installed ones, else the distribution's packages, else (the first two) Docker. Used by ./dev.
# What it installs it keeps from running: no system-wide broker or database is left behind that nobody asked for.

rabbitmq_bin() { # the folder of the real scripts: Debian's wrappers in /usr/sbin change the user
  local server
  if [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; then echo /usr/lib/rabbitmq/bin
  elif server=$(command -v rabbitmq-server) && have epmd; then dirname "$server"
  else return 1; fi
}

postgres_bin() { # the newest one
  local dir newest=
  for dir in /usr/lib/postgresql/*/bin; do
    if [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ]; then newest=$(printf "%s\n" "$newest" "$dir" | sort -V | tail -n 1); fi
  done
  if [ -n "$newest" ]; then echo "$newest"
  elif have postgres && have initdb && have pg_isready; then dirname "$(command -v postgres)"
  else return 1; fi
}

# ensure_installed NAME…, NAME being rabbitmq or postgres.
ensure_installed() {
  local name; local -a packages=()
  for name in "$@"; do
    case $name in
      rabbitmq) if [ -n "${DEV_RABBITMQ:-}" ]; then ensure_newer_rabbitmq "$DEV_RABBITMQ"; elif ! rabbitmq_bin >/dev/null; then packages+=(rabbitmq-server); fi ;;
      postgres) postgres_bin >/dev/null || packages+=(postgresql) ;;
    esac
  done
  [ ${#packages[@]} -gt 0 ] || return 0
  if have apt-get; then apt_install "${packages[@]}"
  elif docker_works; then say "not installed: ${packages[*]}; using Docker images instead"
  else
    die "not installed: ${packages[*]}. Install them, or start Docker, or say where they run: AMQP_URL=amqp://… DATABASE_URL=postgres://… ./dev …"
  fi
}

# ensure_browser: Chromium and its driver, which the tests of the pages run without a window.
ensure_browser() {
  if have chromium && have chromedriver; then return 0; fi
  if grep -qs '^ID=debian' /etc/os-release; then apt_install chromium chromium-driver
  else say "not installed: chromium and chromedriver; the tests in a browser will fail. Install both, so that PATH has them"; fi
}

# ensure_faketime: the library that gives a process a clock of its own.
ensure_faketime() {
  if compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null; then return 0; fi
  if have apt-get && is_root; then apt_install libfaketime
  else say "LEFT OUT: a clock that is off, since libfaketime is not installed (Debian, Ubuntu: apt-get install libfaketime)"; fi
}

# ensure_prometheus: Prometheus and promtool, which the tests of dashboard and alerts run.
ensure_prometheus() {
  if have prometheus && have promtool; then return 0; fi
  if have apt-get; then apt_install prometheus
  else say "not installed: prometheus and promtool; the tests of dashboard and alerts will fail. Install both, so that PATH has them"; fi
}

AXE_CORE_VERSION=4.14.1

# ensure_axe: exports AXE_CORE, the file of axe-core, with which tests look for what screen readers cannot read; `left-out` where it
# cannot be had.
ensure_axe() {
  local dir=$DEV_DIR/axe-core-$AXE_CORE_VERSION
  export AXE_CORE=left-out
  if [ ! -s "$dir/package/axe.min.js" ]; then
    have npm || { say "LEFT OUT: axe-core, which npm fetches, and npm is not installed"; return 0; }
    mkdir -p "$dir"
    (cd "$dir" && npm pack --silent "axe-core@$AXE_CORE_VERSION" && tar xzf axe-core-*.tgz package/axe.min.js) >"$DEV_DIR/axe.log" 2>&1 ||
      { say "LEFT OUT: axe-core cannot be fetched from here; see $DEV_DIR/axe.log"; return 0; }
  fi
  export AXE_CORE=$dir/package/axe.min.js
}

apt_install() { # PACKAGE…
  local package cluster clusters_before
  clusters_before=$(ls -d /etc/postgresql/*/* 2>/dev/null || true)
  say "installing from the distribution's packages: $* (a minute or two)"
  mkdir -p "$DEV_DIR"
  # A policy-rc.d that answers 101 keeps package scripts from starting services.
  local policy=/usr/sbin/policy-rc.d added=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    added=$policy
  fi
  local ok=1
  {
    as_root apt-get -o DPkg::Lock::Timeout=300 update &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
  } >"$DEV_DIR/apt.log" 2>&1 </dev/null || ok=
  [ -z "$added" ] || as_root rm -f "$added"
  if [ -z "$ok" ]; then tail -n 20 "$DEV_DIR/apt.log" >&2; die "apt-get could not install $*; the whole log: $DEV_DIR/apt.log"; fi
  # These packages were not there before, so nobody wants them to start with the system. The empty cluster that PostgreSQL's package makes
  # goes; one that was left from an earlier installation is somebody's.
  for package in "$@"; do
    if [ -d /run/systemd/system ]; then as_root systemctl disable --quiet --now "$package.service" >/dev/null 2>&1 || true; fi
  done
  for cluster in /etc/postgresql/*/*; do
    case "$clusters_before" in *"$cluster"*) continue ;; esac
    if [ -d "$cluster" ]; then as_root pg_dropcluster --stop "$(basename "$(dirname "$cluster")")" "$(basename "$cluster")"; fi
  done
}

# ensure_newer_rabbitmq 4|4.3, where the distribution has an older one: a newer distribution's package, in a folder of its own.
ensure_newer_rabbitmq() {
  local version=$1 root=$DEV_DIR/rabbitmq$1 mirror suite script=''
  case $version in
    4) suite=trixie ;;
    4.3) suite=forky script=/usr/share/debootstrap/scripts/sid ;; # debootstrap of Debian 12 does not know forky by name
    *) die "DEV_RABBITMQ is '$version'; allowed: unset (the installed RabbitMQ), 4 or 4.3" ;;
  esac
  [ ! -e "$root/.complete" ] || return 0
  if ! have apt-get || ! is_root; then
    if docker_works; then return 0; fi
    die "DEV_RABBITMQ=$version needs root on Debian (it runs debootstrap and chroot), or Docker; or give any such broker as AMQP_URL"
  fi
  have debootstrap || apt_install debootstrap
  mirror=$(awk '/^URIs:/{print $2; exit} $1=="deb"{for(i=2;i<=NF;i++) if($i~/^[a-z]+:\/\//){print $i; exit}}' \
    /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null || true)
  say "unpacking RabbitMQ $version of Debian's $suite under $root (once; about a minute)"
  rm -rf "$root"
  mkdir -p "$root"
  # shellcheck disable=SC2086  # no mirror known: no argument, and debootstrap takes its own
  debootstrap --variant=minbase --include=rabbitmq-server "$suite" "$root" ${mirror:-http://deb.debian.org/debian} $script >"$DEV_DIR/debootstrap.log" 2>&1 ||
    { tail -n 20 "$DEV_DIR/debootstrap.log" >&2; die "debootstrap failed; the whole log: $DEV_DIR/debootstrap.log"; }
  cp /etc/hosts "$root/etc/hosts" # the node looks for localhost
  rm -rf "$root/var/cache/apt/archives"
  touch "$root/.complete"
}
