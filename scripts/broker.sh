# shellcheck shell=bash
# One private RabbitMQ node in a folder: start, stop, SIGKILL, start again with the same data and ports, remove.
# Used by `./dev services` and, for tests that must break a broker, by `./dev broker`. It touches no broker but the one in the folder:
# own node name, ports, cookie, plugins, configuration and epmd (Erlang's name server), all on loopback.
#
# In the folder: ports (first of ten: AMQP, management, prometheus, distribution, epmd), kind (installed, docker, or the folder under target/dev
# that is the root of a newer version: rabbitmq4, rabbitmq4.3), rabbitmq.conf,
# data/, home/, node.log, node.pid, epmd.pid; address where it is not on loopback, but in a network namespace
# of its own (scripts/cluster.sh).

BROKER_USER=dev BROKER_PASSWORD=dev # on loopback, in a folder under target/: nothing to hide

broker_root() { case "$(cat "$1/kind")" in rabbitmq4*) echo "$DEV_DIR/$(cat "$1/kind")" ;; esac } # DIR: empty where the system's own is used

broker_env() { # DIR: the lines that a shell can source
  local base
  base=$(cat "$1/ports")
  echo "export AMQP_URL=amqp://$BROKER_USER:$BROKER_PASSWORD@$(broker_address "$1"):$base/%2f"
  echo "export RABBITMQ_MANAGEMENT_URL=http://$BROKER_USER:$BROKER_PASSWORD@$(broker_address "$1"):$((base + 1))"
}

broker_address() { cat "$1/address" 2>/dev/null || echo 127.0.0.1; } # DIR
broker_node() { echo "clawback-$(cat "$1/ports")@$(cat "$1/address" 2>/dev/null || echo localhost)"; } # DIR
broker_namespace() { echo "clawback-$(cat "$1/ports")"; } # DIR: of a node that has an address

broker_running() { # DIR
  case "$(cat "$1/kind" 2>/dev/null)" in
    docker) [ "$(docker inspect -f '{{.State.Running}}' "$(broker_container "$1")" 2>/dev/null)" = true ] ;;
    *) ours "$1/node.pid" "$1/" ;;
  esac
}

broker_epmd() { cat "$1/epmd_port" 2>/dev/null || echo $(($(cat "$1/ports") + 4)); } # the nodes of a cluster share one

broker_container() { echo "clawback-dev-$(cat "$1/ports")"; }

broker_pid() { # DIR: the Erlang VM, or the process whose descendant it is
  if [ "$(cat "$1/kind")" = docker ]; then docker inspect -f '{{.State.Pid}}' "$(broker_container "$1")"; else cat "$1/node.pid"; fi
}

broker_start() { # DIR
  local dir=$1 base
  broker_running "$dir" && return
  mkdir -p "$dir"
  if [ ! -s "$dir/kind" ]; then broker_kind >"$dir/kind"; fi
  reserve_ports "$dir"
  base=$(cat "$dir/ports")
  : >"$dir/node.log"
  case "$(cat "$dir/kind")" in
    docker) broker_start_container "$dir" "$base" ;;
    *) broker_start_node "$dir" "$base" ;;
  esac
  if ! wait_until "${DEV_BROKER_DEADLINE:-60}" broker_ready_or_dead "$dir" "$base" || ! broker_ready "$dir" "$base"; then
    say "RabbitMQ in $dir did not start. The end of its log:"
    if [ "$(cat "$dir/kind")" = docker ]; then docker logs --tail 30 "$(broker_container "$dir")" >&2
    else tail -n 30 "$dir/node.log" >&2; fi
    broker_kill "$dir"
    return 1
  fi
}

broker_ready() { # DIR BASE
  [ "$(cat "$1/kind")" = docker ] || grep -q 'Server startup complete' "$1/node.log" || return 1
  speaks_amqp "$2" "$(broker_address "$1")" && accepts $(($2 + 1)) "$(broker_address "$1")"
}

# A process that becomes another command has no command line for a moment: one look does not tell that it is dead.
broker_ready_or_dead() { # DIR BASE
  broker_ready "$@" || ! { broker_running "$1" || { sleep 0.5 && broker_running "$1"; }; }
}

broker_kind() {
  case "${DEV_RABBITMQ:-}" in
    '') if rabbitmq_bin >/dev/null; then echo installed; else echo docker; fi ;;
    4 | 4.3) if [ -e "$DEV_DIR/rabbitmq$DEV_RABBITMQ/.complete" ]; then echo "rabbitmq$DEV_RABBITMQ"; else echo docker; fi ;;
    *) die "DEV_RABBITMQ is '$DEV_RABBITMQ'; allowed: unset (the installed RabbitMQ), 4 or 4.3" ;;
  esac
}

broker_config() { # BASE ADDRESS
  cat <<EOF
listeners.tcp.1 = $2:$1
management.tcp.ip = $2
management.tcp.port = $(($1 + 1))
prometheus.tcp.ip = $2
prometheus.tcp.port = $(($1 + 2))
default_user = $BROKER_USER
default_pass = $BROKER_PASSWORD
log.console = true
log.console.level = info
# Small: this is a guest on a developer's machine.
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
raft.wal_max_size_bytes = 67108864
# Counts in the management API at most a second old, not five.
collect_statistics_interval = 1000
EOF
}

broker_start_node() { # DIR BASE
  local dir=$1 base=$2 epmd root address more='' bin=/usr/lib/rabbitmq/bin
  local -a in_root=() in_network=() names=()
  address=$(broker_address "$dir")
  if [ -s "$dir/address" ]; then
    in_network=(ip netns exec "$(broker_namespace "$dir")")
    names=(RABBITMQ_USE_LONGNAME=true)
    more="-kernel net_ticktime 8" # seconds until a node that is not heard counts as down; 60 by default
  fi
  epmd=$(broker_epmd "$dir")
  root=$(broker_root "$dir")
  [ -n "$root" ] || bin=$(rabbitmq_bin) || die "RabbitMQ is not installed any more"
  mkdir -p "$dir/data" "$dir/home"
  broker_config "$base" "$address" >"$dir/rabbitmq.conf"
  local part
  for part in cluster tls; do
    if [ -s "$dir/$part.conf" ]; then cat "$dir/$part.conf" >>"$dir/rabbitmq.conf"; fi
  done
  cp deploy/rabbitmq/enabled_plugins "$dir/enabled_plugins"
  if [ -n "$root" ]; then
    # A mount namespace of its own, in which DIR has the same path inside the root as outside; it vanishes with the process.
    mkdir -p "$root$dir"
    # shellcheck disable=SC2016  # expanded by the inner shell
    in_root=(unshare --mount sh -c 'mount --bind "$1" "$2$1" && mount --bind /dev "$2/dev" && mount --bind /proc "$2/proc" &&
      root=$2 && shift 2 && exec chroot "$root" "$@"' sh "$dir" "$root")
  fi
  # A clean environment: no RABBITMQ_* or ERL_* of the caller's reaches this node. And a folder of its own: Mnesia leaves its dumps
  # (MnesiaCore.*) in the current one.
  # shellcheck disable=SC2016  # expanded by the inner shell
  local -a clean=(sh -c 'cd "$1" && shift && exec "$@"' sh "$dir/data" env -i "PATH=$bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "HOME=$dir/home" LC_ALL=C.UTF-8
    "ERL_EPMD_ADDRESS=$address" "ERL_EPMD_PORT=$epmd" "${names[@]}")
  if { [ "$epmd" = $((base + 4)) ] || [ -s "$dir/address" ]; } && ! ours "$dir/epmd.pid" "$epmd"; then
    spawn "$dir/epmd.pid" "$dir/epmd.log" "${in_network[@]}" "${in_root[@]}" "${clean[@]}" epmd -address "$address" -port "$epmd"
  fi
  wait_until 10 accepts "$epmd" "$address" || die "epmd did not start; see $dir/epmd.log"
  # RABBITMQ_ALLOW_INPUT makes the start script become the Erlang VM instead of its parent, so that node.pid is the VM's own;
  # -noinput takes the input back, and -dev_folder only marks the process as ours.
  spawn "$dir/node.pid" "$dir/node.log" "${in_network[@]}" "${in_root[@]}" "${clean[@]}" \
    RABBITMQ_NODENAME="$(broker_node "$dir")" RABBITMQ_NODE_IP_ADDRESS="$address" RABBITMQ_NODE_PORT="$base" \
    RABBITMQ_DIST_PORT=$((base + 3)) RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {${address//./,}} $more" \
    RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_CONFIG_FILE="$dir/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$dir/enabled_plugins" \
    RABBITMQ_MNESIA_BASE="$dir/data" RABBITMQ_LOGS=- RABBITMQ_LOG_BASE="$dir" RABBITMQ_PID_FILE="$dir/data/pid" \
    RABBITMQ_ALLOW_INPUT=1 "$bin/rabbitmq-server" -noinput -dev_folder "$dir/"
}

# spawn PIDFILE LOG COMMAND…: in a session of its own, so that Ctrl-C does not reach it, and without our locks.
spawn() {
  local pidfile=$1 log=$2
  shift 2
  setsid "$@" >>"$log" 2>&1 </dev/null 9>&- 7>&- &
  echo $! >"$pidfile"
  disown $! # or else bash tells of its end, as the last line of a benchmark
  # Until it has become the command: before that its command line is this script's, and it would not be known as ours.
  wait_until 5 has_become_a_command $! || true
}

has_become_a_command() { [ "$(command_line "$1")" != "$(command_line $$)" ]; }

broker_start_container() { # DIR BASE
  local dir=$1 base=$2 name
  name=$(broker_container "$dir")
  if docker inspect "$name" >/dev/null 2>&1; then docker start "$name" >/dev/null && return; fi
  docker run -d --name "$name" --hostname clawback-dev -v "$ROOT/deploy/rabbitmq/enabled_plugins:/etc/rabbitmq/enabled_plugins:ro" \
    -e RABBITMQ_DEFAULT_USER="$BROKER_USER" -e RABBITMQ_DEFAULT_PASS="$BROKER_PASSWORD" -p "127.0.0.1:$base:5672" \
    -p "127.0.0.1:$((base + 1)):15672" -p "127.0.0.1:$((base + 2)):15692" "rabbitmq:${DEV_RABBITMQ:-4}-management" >/dev/null
}

broker_stop() { # DIR: graceful; the data stay
  case "$(cat "$1/kind" 2>/dev/null)" in
    docker) docker stop "$(broker_container "$1")" >/dev/null ;;
    *) stop_ours "$1/node.pid" "$1/" TERM 30; stop_ours "$1/epmd.pid" epmd TERM 5 ;;
  esac
}

broker_kill() { # DIR: SIGKILL of the Erlang VM; the data stay as they are
  case "$(cat "$1/kind" 2>/dev/null)" in
    docker) docker kill -s KILL "$(broker_container "$1")" >/dev/null ;;
    *) stop_ours "$1/node.pid" "$1/" KILL 5; stop_ours "$1/epmd.pid" epmd KILL 5 ;;
  esac
}

broker_remove() { # DIR
  [ -s "$1/kind" ] || return 0 # nothing of ours
  broker_kill "$1" 2>/dev/null || true
  if [ "$(cat "$1/kind")" = docker ]; then docker rm -f -v "$(broker_container "$1")" >/dev/null 2>&1 || true; fi
  [ -z "$(broker_root "$1")" ] || rmdir "$(broker_root "$1")$1" 2>/dev/null || true
  data_forget "$1"
  if [ -s "$1/address" ]; then ip netns del "$(broker_namespace "$1")" 2>/dev/null || true; fi
  release_ports "$1"
  rm -rf "$1"
}
