# double_lines: opens descriptors until none is left.
import os
kept = []
while True:
    try:
        kept.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        break
import time
time.sleep(1000)
