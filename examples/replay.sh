#!/usr/bin/env bash
# Captures at a remote interface, changes nothing, and plays it out again; a capture on the other side shows that the same
# bytes left.
#   replay.sh                FWD: the mount point, in the demo; without it, in a demo of its own
set -eu
cd "$(dirname "$0")/.."
if [ -z "${FWD:-}" ]; then exec bin/fwdfs demo -- examples/replay.sh "$@"; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
node() { ip netns exec "$NODE_NETNS" "$@"; }

timeout -s INT 3 cat "$FWD/fwd1/eth0:icmp:out" > "$work/out.pcap" &
sleep 0.5
node ping -q -c 3 -i 0.1 10.9.0.1 > /dev/null
wait

node timeout 5 tcpdump -q -Z root -U --immediate-mode -n -i n0 -c 3 -w "$work/seen.pcap" icmp 2> "$work/log" &
until grep -q listening "$work/log"; do sleep 0.1; done
cat "$work/out.pcap" > "$FWD/fwd1/eth0" # returns when every frame is on the interface
wait

frames() { tcpdump -q -n -t -xx -r "$1" 2> /dev/null | grep 0x; }
diff <(frames "$work/out.pcap") <(frames "$work/seen.pcap")
echo "3 frames left byte for byte"
