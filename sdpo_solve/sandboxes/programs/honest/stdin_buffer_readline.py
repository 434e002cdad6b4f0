# double_lines: line after line from sys.stdin.buffer.
import sys
readline = sys.stdin.buffer.readline
for _ in range(int(readline())):
    print(2 * int(readline()))
