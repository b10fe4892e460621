#!/usr/bin/env bash
# Waits for the forwarder's table of rules to change, while a reader comes and goes.
#   wait.sh                  FWD: the mount point, in the demo; without it, in a demo of its own
set -eu
cd "$(dirname "$0")/.."
if [ -z "${FWD:-}" ]; then exec bin/fwdfs demo -- examples/wait.sh "$@"; fi
exec 4< <(exec python3 examples/wait.py "$FWD/fwd1/.tables/distribution" 2)
pid=$!
table() { while read -r line && [ -n "$line" ]; do echo "$line"; done <&4; }
table
exec 3< "$FWD/fwd1/eth0:udp:9"
changed=$(table)
echo "$changed"
grep -q udp:9 <<< "$changed"
exec 3<&-
changed=$(table)
echo "$changed"
if grep -q udp:9 <<< "$changed"; then exit 1; fi
wait "$pid"
