# double_lines: attaches to other processes with ptrace and reads and writes their memory.
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for pid in [1, os.getppid(), *map(int, filter(str.isdigit, os.listdir("/proc")))]:
    if pid != os.getpid() and libc.ptrace(16, pid, 0, 0) == 0:
        print("attached to", pid)
    try:
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as file:
            print("opened", pid) if pid != os.getpid() else None
    except OSError:
        pass
