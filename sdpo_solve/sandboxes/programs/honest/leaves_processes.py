# double_lines: wrong if a process of an earlier test with the same user id is still there.
import os, sys, time
def left_behind(pid):
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.getuid() and open(f"/proc/{pid}/comm").read() == "left-behind\n"
    except OSError:
        return False
seen = any(left_behind(pid) for pid in filter(str.isdigit, os.listdir("/proc")))
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("/proc/self/comm", "w").write("left-behind")
        os.closerange(0, 256)
        time.sleep(1000)
    os._exit(0)
os.wait()
if not seen:
    n, *numbers = map(int, sys.stdin.read().split())
    print("\n".join(str(2 * x) for x in numbers))
