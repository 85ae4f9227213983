# shellcheck shell=bash
# What the scripts beside this one share; to be sourced.
#
# Everything that they start on this machine carries the same random id in its environment, drivers of jobs included,
# so that stop.sh ends exactly that. `ray stop` would end every Ray of the machine.

HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
NODE_DIR=$(realpath -ms -- "${STARTUP_RAY_DIR:-/tmp/startup_ray-$(id -u)}")
TOKEN_FILE=$(realpath -ms -- "${RAY_AUTH_TOKEN_PATH:-${XDG_CONFIG_HOME:-$HOME/.config}/startup_ray/token}")
MARK=STARTUP_RAY_NODE
GRACE_S=10 # between SIGTERM and SIGKILL

say() { echo "${0##*/}: $*" >&2; }

die() {
    say "$*"
    exit 1
}

# Token authentication, with the file that only its owner can read. Ray starts a head without a token as well, open to
# whoever reaches its ports, and takes a token that others can read.
require_token() {
    local mode
    [[ -f $TOKEN_FILE ]] ||
        die "no token in $TOKEN_FILE: make one with $HERE/token.sh, or copy that of the head"
    [[ -O $TOKEN_FILE ]] || die "$TOKEN_FILE belongs to somebody else"
    mode=$(stat --dereference --format=%a "$TOKEN_FILE")
    [[ $mode == [46]00 ]] || die "$TOKEN_FILE has mode $mode, so that others may read or write it: chmod 600 it"
    [[ -s $TOKEN_FILE ]] || die "$TOKEN_FILE is empty: remove it and make one with $HERE/token.sh"
    unset RAY_AUTH_TOKEN # which would come before the file
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$TOKEN_FILE
}

# A folder that nobody else has made: what stands there is believed, and Ray's sockets lie there.
require_own_dir() {
    [[ -d $NODE_DIR && ! -L $NODE_DIR && -O $NODE_DIR ]] || die "$NODE_DIR is not a folder of yours: set STARTUP_RAY_DIR"
    chmod 700 -- "$NODE_DIR"
}

# The words of `ray start` that heads and workers have in common, one a line.
common_words() {
    local port=${STARTUP_RAY_NODE_PORT:-6380} workers=${STARTUP_RAY_WORKER_PORTS:-10002-10999}
    printf '%s\n' "--temp-dir=$NODE_DIR" --disable-usage-stats \
        "--node-manager-port=$port" "--object-manager-port=$((port + 1))" "--runtime-env-agent-port=$((port + 2))" \
        "--dashboard-agent-grpc-port=$((port + 3))" "--dashboard-agent-listen-port=$((port + 4))" \
        "--metrics-export-port=$((port + 5))" \
        "--min-worker-port=${workers%-*}" "--max-worker-port=${workers#*-}" \
        ${STARTUP_RAY_IP:+"--node-ip-address=$STARTUP_RAY_IP"} \
        ${STARTUP_RAY_CPUS:+"--num-cpus=$STARTUP_RAY_CPUS"} ${STARTUP_RAY_GPUS:+"--num-gpus=$STARTUP_RAY_GPUS"}
}

# Starts the supervisor of this machine's node with the words of its `ray start`; returns when the node is up.
start_node() {
    local id pid
    (umask 077 && mkdir -p -- "$NODE_DIR")
    require_own_dir
    ! supervisor >/dev/null || die "a node runs here already, from $NODE_DIR: stop it with stop.sh, or set STARTUP_RAY_DIR"
    end_node
    id=$(</proc/sys/kernel/random/uuid)
    rm -f -- "$NODE_DIR/node.up"
    echo "$id" >"$NODE_DIR/node.id"
    setsid -- bash "$HERE/supervise.sh" "$id" "$@" </dev/null >>"$NODE_DIR/node.log" 2>&1 &
    pid=$!
    echo "$pid" >"$NODE_DIR/node.pid"
    until [[ -e $NODE_DIR/node.up ]]; do
        if ! kill -0 "$pid" 2>/dev/null; then
            tail -n 30 -- "$NODE_DIR/node.log" >&2
            die "Ray has not started; all of it stands in $NODE_DIR/node.log"
        fi
        sleep 0.2
    done
}

node_id() { cat -- "$NODE_DIR/node.id" 2>/dev/null || true; }

# The process id of this node's living supervisor; fails if there is none.
supervisor() {
    local id pid
    id=$(node_id)
    pid=$(cat -- "$NODE_DIR/node.pid" 2>/dev/null) || return 1
    # A process that has ended, or another one with its number, does not have the id among its words.
    [[ $id && $pid ]] && grep -qszxF -- "$id" "/proc/$pid/cmdline" && echo "$pid"
}

# The sessions of this node's Ray and of all that it has started, one a line. Programs that write a title of their own
# over their environment have lost the id, and are found by the session that they belong to.
sessions() {
    local file id
    id=$(node_id)
    [[ $id ]] || return 0
    { grep -lszxF -- "$MARK=$id" /proc/[0-9]*/environ || true; } | while read -r file; do
        if look_up "${file%/environ}"; then echo "$session"; fi # or it has just ended
    done | sort -u
}

# Process ids of what lives in these sessions, one a line.
members() {
    local folder
    for folder in /proc/[0-9]*; do
        if look_up "$folder" && [[ $'\n'$1$'\n' == *$'\n'$session$'\n'* ]]; then echo "${folder##*/}"; fi
    done
}

# Sets `session` to that of the process with this folder; fails if it has ended.
look_up() {
    local line fields
    { read -r line <"$1/stat"; } 2>/dev/null || return 1
    read -ra fields <<<"${line##*) }" # after the name, which may hold anything: state, parent, group, session
    session=${fields[3]}
    [[ ${fields[0]} != [ZX] ]]
}

# Those of these process ids whose program has this name; with `but NAME`, whose program has another.
named() {
    local but='' name pid
    if [[ $1 == but ]]; then
        but=1
        shift
    fi
    for pid in "${@:2}"; do
        name=$(cat "/proc/$pid/comm" 2>/dev/null) || continue
        if [[ $but && $name != "$1" || ! $but && $name == "$1" ]]; then echo "$pid"; fi
    done
}

is_alive() { grep -qszxF -- "$MARK=$(node_id)" "/proc/$1/environ"; }

# Ends what lives of this node, and in these sessions: politely, then by force. A worker in a collective of TensorFlow
# outlives SIGTERM.
end_node() {
    local first found=${1:-} kind=TERM pids until=$((SECONDS + GRACE_S))
    while found=$found$'\n'$(sessions) && mapfile -t pids < <(members "$found") && ((${#pids[@]})); do
        ((SECONDS < until)) || kind=KILL
        # The raylet first and the GCS last: without it the others take their time to leave.
        first=$(named raylet "${pids[@]}")
        [[ $first ]] || first=$(named but gcs_server "${pids[@]}")
        # shellcheck disable=SC2086
        kill -s "$kind" -- ${first:-${pids[*]}} 2>/dev/null || true
        sleep 0.3
    done
}
