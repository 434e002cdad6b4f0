# double_lines: closes every descriptor and waits.
import os, time
os.closerange(0, 1024)
time.sleep(1000)
