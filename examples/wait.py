#!/usr/bin/env python3
"""Waits until a table, .state or an attribute reads otherwise than before, as one waits for a file of sysfs.
   wait.py FILE COUNT       prints the text, and again after each of COUNT changes"""
import os, select, sys

file, count = sys.argv[1], int(sys.argv[2])
fd = os.open(file, os.O_RDONLY)
poll = select.poll()
poll.register(fd, select.POLLPRI | select.POLLERR)
while True:
    os.lseek(fd, 0, os.SEEK_SET)  # from the start: the text of now, and quiet until the next change
    print(os.read(fd, 1 << 20).decode(), flush=True)
    if count == 0:
        break
    poll.poll()
    count -= 1
