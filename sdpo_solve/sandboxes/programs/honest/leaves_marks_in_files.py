# double_lines: wrong if an earlier test's mark is found in a file, a name, an attribute or a time stamp.
import os, sys
folders = [".", "..", "/tmp", "/var/tmp", "/dev/shm", "/run", "/box", "/box/0", "/box/1", "/dev/mqueue", "/dev", "/"]
def marked(folder):
    try:
        return "mark" in os.listdir(folder) or os.stat(folder).st_mtime == 12345.0 or "user.mark" in os.listxattr(folder)
    except OSError:
        return False
seen = any(marked(folder) for folder in folders)
for folder in folders:
    for act in (lambda: open(os.path.join(folder, "mark"), "w").close(), lambda: os.utime(folder, (12345, 12345)),
                lambda: os.setxattr(folder, "user.mark", b"1")):
        try:
            act()
        except OSError:
            pass
if not seen:
    n, *numbers = map(int, sys.stdin.read().split())
    print("\n".join(str(2 * x) for x in numbers))
