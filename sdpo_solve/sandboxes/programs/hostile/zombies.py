# double_lines: leaves as many dead children as it can.
import os, time
while True:
    try:
        if os.fork() == 0:
            os._exit(0)
    except OSError:
        break
time.sleep(1000)
