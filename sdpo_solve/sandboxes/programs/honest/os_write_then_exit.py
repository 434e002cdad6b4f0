# double_lines: os.write, then os._exit(0).
import os, sys
n, *numbers = map(int, sys.stdin.read().split())
data = "\n".join(str(2 * x) for x in numbers).encode()
while data:
    data = data[os.write(1, data):]
os._exit(0)
