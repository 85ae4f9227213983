#!/usr/bin/env bash
# Joins this machine to a Ray cluster as a worker and returns; a supervisor brings it back whenever it was lost, until
# stop.sh.
#
#     worker.sh HEAD[:PORT] [OPTION OF RAY START]...
#
# Needs `ray` on the PATH, of the head's version, and a copy of the head's token. Environment, with defaults:
#
#     RAY_AUTH_TOKEN_PATH         ~/.config/startup_ray/token     the head's token; only you may read it
#     STARTUP_RAY_DIR             /tmp/startup_ray-UID            sessions, logs and node.log; a short path
#     STARTUP_RAY_IP              as Ray finds it                 this machine's address, as the others reach it
#     STARTUP_RAY_CPUS            all                             what the cluster may use of this machine
#     STARTUP_RAY_GPUS            all
#     STARTUP_RAY_NODE_PORT       6380                            the first of six: raylet, objects, runtime
#                                                                 environments, agent (gRPC, HTTP), metrics
#     STARTUP_RAY_WORKER_PORTS    10002-10999                     one for each process of a job
set -euo pipefail
# shellcheck source=cluster/local/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

(($#)) || die "which head? worker.sh HEAD[:PORT]"
head=$1
shift
[[ $head == *:* ]] || head=$head:6379

require_token
mapfile -t words < <(common_words)
start_node "--address=$head" "${words[@]}" "$@"
say "joined $head; the log is $NODE_DIR/node.log, leave with stop.sh"
