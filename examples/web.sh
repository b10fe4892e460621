#!/usr/bin/env bash
# A web server that knows nothing of fwdfs, reachable at the address of a remote interface for as long as it runs.
#   web.sh                   FWD: the mount point, in the demo; without it, in a demo of its own
set -eu
cd "$(dirname "$0")/.."
if [ -z "${FWD:-}" ]; then exec bin/fwdfs demo -- examples/web.sh "$@"; fi
work=$(mktemp -d)
echo 'hello from the control device' > "$work/index.html"
get() {
  ip netns exec "$NODE_NETNS" python3 -c '
import sys, urllib.request
try: print(urllib.request.urlopen(sys.argv[1], timeout=1).read().decode(), end="")
except OSError: print("nobody answers")' http://10.9.0.1/
}

bin/fwdfs vif add -m "$FWD" fwd1/eth0
ip netns exec "$CONTROL_NETNS" python3 -m http.server --directory "$work" 80 > /dev/null 2>&1 &
server=$!
trap 'kill "$server" 2> /dev/null || true; bin/fwdfs vif remove -m "$FWD" fwd1/eth0; rm -rf "$work"' EXIT
for _ in $(seq 50); do [ "$(get)" = 'nobody answers' ] || break; done
get
bin/fwdfs vif list -m "$FWD"
[ "$(get)" = 'hello from the control device' ]
kill "$server"
wait "$server" || true
for _ in $(seq 50); do [ "$(get)" = 'nobody answers' ] && break; done
[ "$(get)" = 'nobody answers' ]
[ "$(cut -f 2 "$FWD/.tables/vif_rules" | grep -c tcp:80)" = 0 ]
echo 'and it is gone with its socket'
