# double_lines: wrong if an earlier test's System V memory, message queue or key is still there.
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
seen = libc.shmget(4242, 4096, 0o666) >= 0 or libc.msgget(4242, 0o666) >= 0 or libc.semget(4242, 1, 0o666) >= 0
libc.shmget(4242, 4096, 0o1666)
libc.msgget(4242, 0o1666)
libc.semget(4242, 1, 0o1666)
for name in (b"/mark", b"/other"):
    if libc.mq_open(name, os.O_RDONLY) >= 0:
        seen = True
    libc.mq_open(name, os.O_RDWR | os.O_CREAT, 0o666, None)
key = b"user", b"mark", b"1", 1, -4
if libc.syscall(249, b"user", b"mark", None, -4) >= 0:
    seen = True
libc.syscall(248, *key)
if not seen:
    n, *numbers = map(int, sys.stdin.read().split())
    print("\n".join(str(2 * x) for x in numbers))
