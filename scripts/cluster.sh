# shellcheck shell=bash
# Three RabbitMQ nodes as one cluster, on loopback or each in a network of its own, and rabbitmqctl for a node that ./dev started. Used by
# ./dev cluster-test, ./dev chaos --cluster and scripts/rabbitmqctl.

# broker_ctl DIR ARGUMENTS…: rabbitmqctl, in the node's own environment.
broker_ctl() {
  local dir=$1 root bin=/usr/lib/rabbitmq/bin
  local -a in_root=() in_network=() names=()
  if [ -s "$dir/address" ]; then in_network=(ip netns exec "$(broker_namespace "$dir")") names=(--longnames); fi
  root=$(broker_root "$dir")
  shift
  case "$(cat "$dir/kind")" in
    docker) docker exec "$(broker_container "$dir")" rabbitmqctl "$@"; return ;;
    rabbitmq4*)
      # shellcheck disable=SC2016  # expanded by the inner shell
      in_root=(unshare --mount sh -c 'mount --bind "$1" "$2$1" && mount --bind /dev "$2/dev" && mount --bind /proc "$2/proc" &&
        root=$2 && shift 2 && exec chroot "$root" "$@"' sh "$dir" "$root") ;;
    *) bin=$(rabbitmq_bin) || die "RabbitMQ is not installed any more" ;;
  esac
  "${in_network[@]}" "${in_root[@]}" env -i "PATH=$bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "HOME=$dir/home" LC_ALL=C.UTF-8 \
    "ERL_EPMD_PORT=$(broker_epmd "$dir")" RABBITMQ_CONF_ENV_FILE=/dev/null \
    "$bin/rabbitmqctl" "${names[@]}" --node "$(broker_node "$dir")" "$@"
}

# cluster_start DIR [apart]: three nodes in DIR/1, DIR/2 and DIR/3, each of which is a broker for `./dev broker start|kill DIR/N`; prints their
# URLs, one a line. `apart`: each in a network namespace of its own, so that the network between two can be cut. Docker is not supported.
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
  [ "${2:-}" != apart ] || cluster_networks "$dir"
  epmd=$(($(cat "$dir/1/ports") + 5))
  for node in "$dir"/1 "$dir"/2 "$dir"/3; do
    echo "$epmd" >"$node/epmd_port"
    {
      echo "cluster_formation.peer_discovery_backend = classic_config"
      for other in 1 2 3; do echo "cluster_formation.classic_config.nodes.$other = $(broker_node "$dir/$other")"; done
      # Of two nodes that do not hear each other the one without a majority stops, and comes back by itself.
      [ "${2:-}" != apart ] || echo "cluster_partition_handling = pause_minority"
    } >"$node/cluster.conf"
  done
  # One of the nodes' own would die with its node.
  [ "${2:-}" = apart ] || cluster_epmd "$dir" "$epmd"
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
  bin=$(rabbitmq_bin) || bin=$DEV_DIR/rabbitmq${DEV_RABBITMQ:-4}/usr/bin
  spawn "$1/epmd.pid" "$1/epmd.log" env "PATH=$bin:$PATH" epmd -address 127.0.0.1 -port "$2"
}

cluster_remove() { # DIR
  local node
  for node in "$1"/1 "$1"/2 "$1"/3; do broker_remove "$node"; done
  stop_ours "$1/epmd.pid" epmd TERM 5
  rm -rf "$1"
}

# cluster_networks DIR: for each node a namespace with one address, and a cable to each other and to this machine. No bridge: what a firewall
# does with forwarded packets is nobody's business here.
cluster_networks() {
  local dir=$1 net one other
  is_root && have ip || die "cluster: nodes in networks of their own need root and iproute2 (Debian, Ubuntu: apt-get install iproute2)"
  net=10.77.$((RANDOM % 254 + 1))
  for one in 1 2 3; do
    echo "$net.$one" >"$dir/$one/address"
    ip netns add "$(broker_namespace "$dir/$one")"
    ip -n "$(broker_namespace "$dir/$one")" link set lo up
    ip -n "$(broker_namespace "$dir/$one")" addr add "$net.$one/32" dev lo
  done
  for one in 1 2 3; do
    # This machine's end of the cable has an address of its own, for the answers.
    ip link add "cb$(cat "$dir/$one/ports")" type veth peer name outside netns "$(broker_namespace "$dir/$one")"
    ip addr add "$net.$((one + 100))/32" dev "cb$(cat "$dir/$one/ports")"
    ip link set "cb$(cat "$dir/$one/ports")" up
    ip route add "$net.$one/32" dev "cb$(cat "$dir/$one/ports")" src "$net.$((one + 100))"
    cluster_route "$dir/$one" outside "$net.$((one + 100))"
    for other in 1 2 3; do
      [ "$other" -gt "$one" ] || continue
      ip -n "$(broker_namespace "$dir/$one")" link add "to$other" type veth peer name "to$one" netns "$(broker_namespace "$dir/$other")"
      cluster_route "$dir/$one" "to$other" "$net.$other"
      cluster_route "$dir/$other" "to$one" "$net.$one"
    done
  done
}

cluster_route() { # DIR DEVICE ADDRESS
  ip -n "$(broker_namespace "$1")" link set "$2" up
  ip -n "$(broker_namespace "$1")" route add "$3/32" dev "$2" src "$(cat "$1/address")"
}

# cluster_part DIR ONE OTHER, cluster_join DIR ONE OTHER: the cable between these nodes is unplugged, or plugged in again.
cluster_part() { ip -n "$(broker_namespace "$1/$2")" link set "to$3" down; }
cluster_join() {
  cluster_route "$1/$2" "to$3" "$(cat "$1/$3/address")"
  cluster_route "$1/$3" "to$2" "$(cat "$1/$2/address")" 2>/dev/null || true # the other end's route may have stayed
}
