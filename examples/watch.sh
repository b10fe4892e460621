#!/usr/bin/env bash
# Counts what an interface receives, by kind, for a few seconds. A rule for each kind is there while its file is open.
#   watch.sh [SECONDS]       FWD: the mount point; without it, in a demo of its own
set -eu
cd "$(dirname "$0")/.."
if [ -z "${FWD:-}" ]; then exec bin/fwdfs demo -- examples/watch.sh "$@"; fi
seconds=${1:-2}
file=$FWD/fwd1/eth0
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

for kind in arp icmp udp tcp; do
  { timeout -s INT "$seconds" cat "$file:$kind:hex" | wc -l > "$results/$kind"; } &
done
sleep 0.5
fwdfs_rules=$(tail -n +2 "$FWD/fwd1/.tables/distribution" | wc -l)
echo "$fwdfs_rules rules while the files are open"
# Some traffic of our own, where this runs in the demo.
if [ -n "${NODE_NETNS:-}" ]; then ip netns exec "$NODE_NETNS" ping -q -c 5 -i 0.1 10.9.0.1 > /dev/null; fi
wait
for kind in arp icmp udp tcp; do echo "$kind $(cat "$results/$kind")"; done
[ "$(cat "$results/icmp")" -ge 5 ] || [ -z "${NODE_NETNS:-}" ]
