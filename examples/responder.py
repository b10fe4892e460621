#!/usr/bin/env python3
"""Answers ARP for an address that nobody has, through the file: reads and writes on one descriptor, a packet a call.
   responder.py ADDRESS COUNT       FWD: the mount point"""
import os, socket, sys

address, count = socket.inet_aton(sys.argv[1]), int(sys.argv[2])
folder = os.environ["FWD"] + "/fwd1/"
mac = bytes.fromhex(open(folder + ".if/eth0/address").read().strip().replace(":", ""))
fd = os.open(folder + "eth0:arp:raw", os.O_RDWR)
print("ready", flush=True)
while count > 0:
    frame = os.read(fd, 2048)
    arp = frame[14:42]
    is_request, sender, target = arp[6:8] == b"\0\1", arp[8:18], arp[24:28]
    if not is_request or target != address:
        continue
    os.write(fd, sender[:6] + mac + frame[12:14] + arp[:6] + b"\0\2" + mac + address + sender)
    count -= 1
os.close(fd)
