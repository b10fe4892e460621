/**
 * One worker of the mix, in Python: does at random what programs do to a symbol, for a time, from a seed. What it may meet is
 * listed for each call; anything else is shown as unexpected. argv: MOUNT, seconds, seed, MAC address of the frames.
 */
export const MIX_WORKER = `
import collections, errno, json, os, random, select, signal, struct, sys, time
base, seconds, seed, mac = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4].replace(':', ''))
dice = random.Random(seed)
fwd1 = base + '/fwd1/'
calls, errors, unexpected = collections.Counter(), collections.Counter(), collections.Counter()

class Late(Exception): pass
def late(*_): raise Late
signal.signal(signal.SIGALRM, late)

def call(name, allowed, function, *args, wait=0.02):
    """Makes a call, which is interrupted when it waits too long."""
    calls[name] += 1
    try:
        signal.setitimer(signal.ITIMER_REAL, wait)
        try: return function(*args)
        finally: signal.setitimer(signal.ITIMER_REAL, 0)
    except Late:
        errors[name + ' interrupted'] += 1
    except OSError as e:
        code = errno.errorcode[e.errno]
        (errors if code in allowed.split() else unexpected)[name + ' ' + code] += 1

SCOPES = ('', '', '', ':udp:520', ':arp', ':icmp', ':ether:0x88b5', ':tcp:10.9.0.1:80', ':udp:[fd09::1]:520')
WORDS = ('', '', ':out', ':both', ':promisc')
FRAMINGS = ('', ':raw', ':hex', '.pcap', ':gso')
MODES = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)
FLAGS = (0, os.O_NONBLOCK, os.O_NONBLOCK | os.O_TRUNC, os.O_APPEND, os.O_SYNC)

def symbol():
    return fwd1 + 'eth0' + dice.choice(SCOPES) + dice.choice(WORDS) + dice.choice(FRAMINGS)
def flags():
    return dice.choice(MODES) | dice.choice(FLAGS)
def frame():
    length = dice.choice((60, 61, 100, 1000, 1514, 1514, 1600))
    return mac + b'\\2\\0\\0\\0\\0\\1' + b'\\x88\\xb5' + bytes(length - 14)
def bytes_to_write():
    kind = dice.randrange(6)
    if kind == 0: return dice.randbytes(dice.randrange(1, 4000))
    if kind == 1: return frame()
    if kind == 2: return frame().hex().encode() + b'\\n'
    header = struct.pack('<IHHiIII', 0xa1b2c3d4, 2, 4, 0, 0, 262144, 1)
    frames = [frame() for _ in range(dice.randrange(1, 50))]
    stream = header + b''.join(struct.pack('<IIII', 1, 0, len(f), len(f)) + f for f in frames)
    return stream[:dice.randrange(1, len(stream))] if kind == 3 else stream

held = []
def do_open():
    fd = call('open', 'EINTR', os.open, symbol(), flags(), wait=1)
    if fd is not None: held.append(fd)
def do_read():
    if held: call('read', 'EAGAIN EBADF EMSGSIZE', os.read, dice.choice(held), dice.choice((1, 24, 100, 4096, 1 << 20)))
def do_write():
    if held: call('write', 'EAGAIN EBADF EINVAL EIO', os.write, dice.choice(held), bytes_to_write())
def do_poll():
    if held: call('poll', '', select.select, held, held, [], dice.choice((0, 0.005)))
def do_fsync():
    if held: call('fsync', 'EIO', os.fsync, dice.choice(held), wait=0.1)
def do_dup():
    if held: held.append(call('dup', '', os.dup, dice.choice(held)) or held.pop())
def close(fd):
    call('close', 'EINVAL EIO', os.close, fd, wait=1)
def do_close():
    if held: close(held.pop(dice.randrange(len(held))))
def do_table():
    name = dice.choice(('fwd1/.tables/distribution', 'fwd1/.tables/reception', '.tables/reception', 'fwd1/.state'))
    def read():
        with open(base + '/' + name, 'rb', buffering=0) as file:
            while file.read(dice.choice((1, 100, 65536))): pass
    call('table', '', read, wait=2)
def do_names():
    for function, *args in dice.sample((
        (os.listdir, fwd1), (os.stat, symbol()), (os.unlink, symbol()), (os.rename, symbol(), fwd1 + 'x'), (os.mkdir, fwd1 + 'x'),
        (os.open, fwd1 + 'eth0:nonsense', os.O_RDONLY), (os.open, fwd1 + 'eth9', os.O_RDWR | os.O_CREAT), (os.utime, symbol()),
        (os.truncate, symbol(), 0), (os.chmod, symbol(), 0o777), (os.listdir, fwd1 + '.if/eth0/statistics'),
    ), 3):
        call(function.__name__ + ' of a name', 'EPERM EINVAL ENOENT', function, *args, wait=1)
def do_child():
    """A child that waits in a read, or is in the middle of a record, with what it inherited, and is killed."""
    pid = os.fork()
    if pid == 0:
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            fd = os.open(symbol(), dice.choice(MODES))
            while True:
                try: os.write(fd, bytes_to_write())
                except OSError: pass
                try: os.read(fd, 65536)
                except OSError: time.sleep(0.001)
        finally: os._exit(1)
    time.sleep(dice.random() * 0.02)
    if dice.randrange(2):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(dice.random() * 0.005)
        if dice.randrange(2): os.kill(pid, signal.SIGCONT)
    os.kill(pid, signal.SIGKILL)
    calls['killed'] += 1
    os.waitpid(pid, 0)

steps = (do_open,) * 6 + (do_read,) * 8 + (do_write,) * 6 + (do_poll,) * 3 + (do_fsync, do_dup, do_table, do_names, do_child) + (do_close,) * 6
end = time.monotonic() + seconds
while time.monotonic() < end:
    dice.choice(steps)()
    while len(held) > 12: do_close()
for fd in held: close(fd)
print(json.dumps({'calls': calls, 'errors': errors, 'unexpected': unexpected}))
`;
