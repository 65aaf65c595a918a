# shellcheck shell=bash
# Three RabbitMQ nodes on loopback as one cluster, and rabbitmqctl for a node that ./dev started. Used by ./dev cluster-test and
# scripts/rabbitmqctl.

# broker_ctl DIR ARGUMENTS…: rabbitmqctl, in the node's own environment.
broker_ctl() {
  local dir=$1 base bin=/usr/lib/rabbitmq/bin
  local -a in_root=()
  base=$(cat "$dir/ports")
  shift
  case "$(cat "$dir/kind")" in
    docker) docker exec "$(broker_container "$dir")" rabbitmqctl "$@"; return ;;
    chroot)
      # shellcheck disable=SC2016  # expanded by the inner shell
      in_root=(unshare --mount sh -c 'mount --bind "$1" "$2$1" && mount --bind /dev "$2/dev" && mount --bind /proc "$2/proc" &&
        root=$2 && shift 2 && exec chroot "$root" "$@"' sh "$dir" "$RABBITMQ4_ROOT") ;;
    *) bin=$(rabbitmq_bin) || die "RabbitMQ is not installed any more" ;;
  esac
  "${in_root[@]}" env -i "PATH=$bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "HOME=$dir/home" LC_ALL=C.UTF-8 \
    "ERL_EPMD_PORT=$(broker_epmd "$dir")" RABBITMQ_CONF_ENV_FILE=/dev/null \
    "$bin/rabbitmqctl" --node "clawback-$base@localhost" "$@"
}

# cluster_start DIR: three nodes in DIR/1, DIR/2 and DIR/3, each of which is a broker for `./dev broker start|kill DIR/N`; prints their URLs,
# one a line. Docker, where nodes would need a network of their own, is not supported.
cluster_start() {
  local dir=$1 node epmd cookie jobs=''
  cookie=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  for node in "$dir"/1 "$dir"/2 "$dir"/3; do
    mkdir -p "$node/home"
    broker_kind >"$node/kind"
    [ "$(cat "$node/kind")" != docker ] || die "cluster: needs an installed RabbitMQ"
    reserve_ports "$node"
    printf '%s' "$cookie" >"$node/home/.erlang.cookie"
    chmod 400 "$node/home/.erlang.cookie"
  done
  epmd=$(($(cat "$dir/1/ports") + 5))
  for node in "$dir"/1 "$dir"/2 "$dir"/3; do
    echo "$epmd" >"$node/epmd_port"
    {
      echo "cluster_formation.peer_discovery_backend = classic_config"
      for other in 1 2 3; do echo "cluster_formation.classic_config.nodes.$other = clawback-$(cat "$dir/$other/ports")@localhost"; done
    } >"$node/cluster.conf"
  done
  # One of the nodes' own would die with its node.
  cluster_epmd "$dir" "$epmd"
  for node in "$dir"/1 "$dir"/2 "$dir"/3; do
    DEV_BROKER_DEADLINE=120 broker_start "$node" &
    jobs="$jobs $!"
  done
  # shellcheck disable=SC2086  # several
  for job in $jobs; do wait "$job" || die "cluster: a node did not start"; done
  for node in "$dir"/1 "$dir"/2 "$dir"/3; do broker_env "$node" | sed -n 's/^export AMQP_URL=//p'; done
}

cluster_epmd() { # DIR PORT
  local bin=
  bin=$(rabbitmq_bin) || bin=$RABBITMQ4_ROOT/usr/bin
  spawn "$1/epmd.pid" "$1/epmd.log" env "PATH=$bin:$PATH" epmd -address 127.0.0.1 -port "$2"
}

cluster_remove() { # DIR
  local node
  for node in "$1"/1 "$1"/2 "$1"/3; do broker_remove "$node"; done
  stop_ours "$1/epmd.pid" epmd TERM 5
  rm -rf "$1"
}

# run_cluster_test: 10,000 jobs on three nodes, one of which is killed under load and comes back.
run_cluster_test() {
  need_cargo
  cargo test --locked --package clawback-queues --test cluster -- --nocapture
}
