#!/usr/bin/env bash
# Makes the token of a cluster, in a file that only you can read. One that is there stays as it is.
#
#     token.sh        # then copy the file to every worker, by scp for example
#
# Whoever has the token runs code on the cluster. Environment, with defaults:
#
#     RAY_AUTH_TOKEN_PATH    ~/.config/startup_ray/token
set -euo pipefail
# shellcheck source=cluster/local/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

if [[ -e $TOKEN_FILE ]]; then
    require_token
    say "there is one already: $TOKEN_FILE"
    exit
fi
umask 077
mkdir -p -- "${TOKEN_FILE%/*}"
# Written whole under another name first; a link fails where there is a file.
draft=$(mktemp -- "$TOKEN_FILE.XXXXXX")
trap 'rm -f -- "$draft"' EXIT
python3 -c 'import secrets; print(secrets.token_hex(32), end="")' >"$draft"
ln -- "$draft" "$TOKEN_FILE"
say "made $TOKEN_FILE"
