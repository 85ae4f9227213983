#!/usr/bin/env bash
# Starts the head of a Ray cluster on this machine and returns; a supervisor keeps it up until stop.sh.
#
#     token.sh                            # once: a token, which is then copied to every worker
#     head.sh [OPTION OF RAY START]...    # for example --resources '{"disk": 1}'
#
# Needs `ray` on the PATH, of ray[default]. Environment, with defaults:
#
#     RAY_AUTH_TOKEN_PATH         ~/.config/startup_ray/token     the token; only you may read it
#     STARTUP_RAY_DIR             /tmp/startup_ray-UID            sessions, logs and node.log; a short path
#     STARTUP_RAY_IP              as Ray finds it                 this machine's address, as the others reach it
#     STARTUP_RAY_CPUS            all                             what the cluster may use of this machine; 0 leaves it
#     STARTUP_RAY_GPUS            all                             to drivers, dashboard and GCS
#     STARTUP_RAY_PORT            6379                            where workers and drivers join
#     STARTUP_RAY_NODE_PORT       6380                            the first of eight: raylet, objects, runtime
#                                                                 environments, agent (gRPC, HTTP); metrics of node,
#                                                                 autoscaler and dashboard
#     STARTUP_RAY_WORKER_PORTS    10002-10999                     one for each process of a job
#     STARTUP_RAY_DASHBOARD_HOST  127.0.0.1                       dashboard and Jobs API, plain HTTP: tunnel to it
#     STARTUP_RAY_DASHBOARD_PORT  8265
#     STARTUP_RAY_CLIENT_PORT     10001                           Ray Client (ray://), which cannot be switched off
#     RAY_health_check_*          see below                       when a silent host counts as lost
set -euo pipefail
# shellcheck source=cluster/local/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

require_token

# A host that is cut off is given up after about 10 s; with Ray's own settings after about 65.
export RAY_health_check_initial_delay_ms=${RAY_health_check_initial_delay_ms:-1000}
export RAY_health_check_period_ms=${RAY_health_check_period_ms:-1000}
export RAY_health_check_timeout_ms=${RAY_health_check_timeout_ms:-2000}
export RAY_health_check_failure_threshold=${RAY_health_check_failure_threshold:-3}

# Their own are the same for every head of a machine.
export AUTOSCALER_METRIC_PORT=$((${STARTUP_RAY_NODE_PORT:-6380} + 6))
export DASHBOARD_METRIC_PORT=$((${STARTUP_RAY_NODE_PORT:-6380} + 7))

mapfile -t words < <(common_words)
start_node --head "${words[@]}" "--port=${STARTUP_RAY_PORT:-6379}" --include-dashboard=true \
    "--dashboard-host=${STARTUP_RAY_DASHBOARD_HOST:-127.0.0.1}" "--dashboard-port=${STARTUP_RAY_DASHBOARD_PORT:-8265}" \
    "--ray-client-server-port=${STARTUP_RAY_CLIENT_PORT:-10001}" "$@"
say "the head is up; its log is $NODE_DIR/node.log, stop it with stop.sh. Commands on this machine join it with"
say "    RAY_ADDRESS=$(cat -- "$NODE_DIR/ray_current_cluster") RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$TOKEN_FILE"
