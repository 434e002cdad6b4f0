# double_lines: many processes that each take a part.
import os, time
for _ in range(24):
    if os.fork() == 0:
        data = bytearray(48 << 20)
        for i in range(0, len(data), 4096):
            data[i] = 1
        time.sleep(100)
time.sleep(100)
