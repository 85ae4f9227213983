#!/usr/bin/env bash
# Stops what head.sh or worker.sh has started on this machine, jobs included, and nothing else.
#
# Environment, with defaults:
#
#     STARTUP_RAY_DIR    /tmp/startup_ray-UID    as it was at the start
set -euo pipefail
# shellcheck source=cluster/local/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

[[ -e $NODE_DIR ]] || exit 0
require_own_dir
# Of the supervisor nothing is to be saved, and alive it would start the node again.
if pid=$(supervisor); then kill -s KILL -- "-$pid" 2>/dev/null || true; fi
end_node
rm -f -- "$NODE_DIR"/node.{id,pid,up}
