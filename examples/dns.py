#!/usr/bin/env python3
"""A DNS server at a remote interface, through the file: nothing listens at the forwarder, whose kernel keeps quiet meanwhile.
   dns.py NAME ADDRESS COUNT       FWD: the mount point"""
import os, socket, struct, sys

name, address, count = sys.argv[1].lower().encode(), socket.inet_aton(sys.argv[2]), int(sys.argv[3])
folder = os.environ["FWD"] + "/fwd1/"
mac = bytes.fromhex(open(folder + ".if/eth0/address").read().strip().replace(":", ""))

def checksum(data):
    total = sum(struct.unpack("!%dH" % ((len(data) + 1) // 2), data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", total ^ 0xFFFF)

def answer(query):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]])
        at += 1 + query[at]
    question = query[12 : at + 5]
    known = b".".join(labels).lower() == name and question[-4:] == b"\0\1\0\1"  # type A, class IN
    flags = 0x8400 | (query[2] & 1) << 8 | (0 if known else 3)
    record = b"\xc0\x0c\0\1\0\1" + struct.pack("!IH", 60, 4) + address if known else b""
    return query[:2] + struct.pack("!5H", flags, 1, known, 0, 0) + question + record

fd = os.open(folder + "eth0:udp:53:raw:claim", os.O_RDWR)
print("ready", flush=True)
while count > 0:
    frame = os.read(fd, 2048)
    if frame[12:15] != b"\x08\0\x45" or len(frame) < 59:  # IPv4 without options, room for a question
        continue
    client, server, ports = frame[26:30], frame[30:34], frame[36:38] + frame[34:36]
    data = answer(frame[42:] + b"\0")
    udp = ports + struct.pack("!HH", 8 + len(data), 0) + data
    udp = udp[:6] + (checksum(server + client + struct.pack("!HH", 17, len(udp)) + udp).replace(b"\0\0", b"\xff\xff")) + udp[8:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + server + client
    os.write(fd, frame[6:12] + mac + b"\x08\0" + ip[:10] + checksum(ip) + ip[12:] + udp)
    count -= 1
os.close(fd)
