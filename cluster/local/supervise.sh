#!/usr/bin/env bash
# Keeps this machine's Ray node up; started by head.sh and worker.sh, with an id and the words of `ray start`.
#
# Whenever the raylet has ended, or on a head the GCS, what is left of the node is ended too and the node is started
# again: a raylet that the head has given up, because its host was cut off, ends itself and would never come back.
# `ray start --block` is not that: it ends a whole node when its log monitor or its dashboard fails.
set -euo pipefail
# shellcheck source=cluster/local/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

PAUSE_MAX_S=10

id=$1
shift
known='' # the node's sessions, for when nothing is left in them that carries the id
trap 'end_node "$known"; exit 0' TERM INT

note() { echo "$(date --iso-8601=seconds) $*"; }

all_alive() {
    local pid
    for pid in "$@"; do is_alive "$pid" || return 1; done
}

pause_s=1
while :; do
    note "starting: ray start $*"
    if setsid --wait env "$MARK=$id" ray start "$@"; then
        touch -- "$NODE_DIR/node.up"
        known=$(sessions)
        mapfile -t pids < <(members "$known")
        mapfile -t pids < <(named raylet "${pids[@]}" && named gcs_server "${pids[@]}")
        note "up: ${pids[*]}"
        while ((${#pids[@]})) && all_alive "${pids[@]}"; do sleep 1; done
        note "the node has ended"
        pause_s=1
    elif [[ ! -e $NODE_DIR/node.up ]]; then
        end_node
        exit 1 # the first start: whoever waits for it is told
    else
        pause_s=$((pause_s * 2 < PAUSE_MAX_S ? pause_s * 2 : PAUSE_MAX_S))
    fi
    end_node "$known"
    sleep "$pause_s"
done
