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
    "ERL_EPMD_PORT=$(cat "$dir/epmd_port" 2>/dev/null || echo $((base + 4)))" RABBITMQ_CONF_ENV_FILE=/dev/null \
    "$bin/rabbitmqctl" --node "clawback-$base@localhost" "$@"
}
