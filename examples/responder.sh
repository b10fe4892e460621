#!/usr/bin/env bash
# Runs responder.py and lets a node ask for the address.
#   responder.sh             FWD: the mount point, in the demo; without it, in a demo of its own
set -eu
cd "$(dirname "$0")/.."
if [ -z "${FWD:-}" ]; then exec bin/fwdfs demo -- examples/responder.sh "$@"; fi
coproc responder { python3 examples/responder.py 10.9.0.77 1; }
pid=$responder_PID
read -r ready <&"${responder[0]}"
echo "$ready"
node() { ip netns exec "$NODE_NETNS" "$@"; }
# Nobody answers the ping; to send it, the node has to find out whose MAC address it is.
node ping -q -c 1 -W 1 10.9.0.77 > /dev/null || true
node ip neighbour show to 10.9.0.77
node ip neighbour show to 10.9.0.77 | grep -qi "$(cat "$FWD/fwd1/.if/eth0/address")"
wait "$pid"
