#!/usr/bin/env bash
# Two web servers on two control devices share the address of a forwarder, first by virtual IFs, then by a virtual IP address.
#   balance.sh               FWD, FWD2: the mount points, in the demo; without them, in a demo of its own
set -eu
cd "$(dirname "$0")/.."
if [ -z "${FWD2:-}" ]; then exec bin/fwdfs demo --controls 2 -- examples/balance.sh "$@"; fi
work=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2> /dev/null || true; rm -rf "$work"' EXIT

serve() { # a server that knows nothing of fwdfs, and says whose it is
  mkdir -p "$work/$2"
  echo "$2" > "$work/$2/index.html"
  ip netns exec "$1" python3 -m http.server --directory "$work/$2" 80 > /dev/null 2>&1 &
  servers+=($!)
  disown
}
get() { # $1 times, a connection each: how many answers each server gave
  ip netns exec "$NODE_NETNS" python3 -c '
import collections, sys, urllib.request
def get():
    try: return urllib.request.urlopen("http://10.9.0.1/", timeout=1).read().decode().strip()
    except OSError: return "nobody"
print(*(f"{name} {n}" for name, n in sorted(collections.Counter(get() for _ in range(int(sys.argv[1]))).items())))' "$1"
}
until_rules() { # $1 servers are known to the forwarder
  for _ in $(seq 100); do [ "$(grep -c ':80.*active' "$FWD/fwd1/.tables/distribution")" = "$1" ] && return; sleep 0.1; done
  return 1
}

for way in vif vip; do
  if [ $way = vif ]; then what=fwd1/eth0; else what=fwd1/10.9.0.1; fi
  for mount in "$FWD" "$FWD2"; do bin/fwdfs $way add -m "$mount" $what; done
  serve "$CONTROL_NETNS" ctl1
  serve "$CONTROL2_NETNS" ctl2
  until_rules 2
  bin/fwdfs rules -m "$FWD" | grep -E 'members|:80'
  shared=$(get 40)
  echo "$way: $shared"
  [[ "$shared" =~ ctl1\ [0-9]+\ ctl2\ [0-9]+$ ]] # both, and no request failed
  bin/fwdfs drain -m "$FWD" fwd1
  [ "$(get 10)" = 'ctl2 10' ]
  bin/fwdfs drain -m "$FWD" --off fwd1
  kill -9 "${servers[1]}"
  until_rules 1
  [ "$(get 10)" = 'ctl1 10' ]
  echo "$way: the other one serves alone"
  kill "${servers[0]}"
  until_rules 0
  servers=()
  for mount in "$FWD" "$FWD2"; do bin/fwdfs $way remove -m "$mount" $what; done
done
