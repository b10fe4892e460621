#!/usr/bin/env bash
# Runs dns.py and lets a node ask it. Without it the forwarder's kernel says that nobody listens; while the file is open it says nothing.
#   dns.sh                   FWD: the mount point, in the demo; without it, in a demo of its own
set -eu
cd "$(dirname "$0")/.."
if [ -z "${FWD:-}" ]; then exec bin/fwdfs demo -- examples/dns.sh "$@"; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
node() { ip netns exec "$NODE_NETNS" "$@"; }
ask() {
  node python3 -c '
import socket, struct, sys
labels = b"".join(bytes([len(label)]) + label.encode() for label in sys.argv[1].split("."))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect(("10.9.0.1", 53))
s.send(struct.pack("!6H", 4660, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1")
try: reply = s.recv(512)
except ConnectionRefusedError: sys.exit("refused: port unreachable")
print(socket.inet_ntoa(reply[-4:]) if reply[3] & 15 == 0 else "no such name")' "$1" 2>&1
}

ask files.example || true
coproc server { python3 examples/dns.py files.example 192.0.2.7 2; }
pid=$server_PID
read -r ready <&"${server[0]}"
echo "$ready"
node timeout 20 tcpdump -q -Z root -l --immediate-mode -vv -n -i n0 -Q in -c 2 udp or icmp > "$work/seen" 2> "$work/log" &
capture=$!
until grep -q listening "$work/log"; do sleep 0.1; done
[ "$(ask files.example)" = 192.0.2.7 ]
[ "$(ask other.example)" = "no such name" ]
wait "$pid" "$capture"
[ "$(grep -c 'udp sum ok' "$work/seen")" = 2 ] # both packets that came are answers: no ICMP among them
echo "files.example is 192.0.2.7, and port 53 was not unreachable"
until [ "$(ask files.example)" = "refused: port unreachable" ]; do sleep 0.1; done # the claim is gone
