# double_lines: iterates over sys.stdin.
import sys
lines = iter(sys.stdin)
next(lines)
for l in sys.stdin:
    print(int(l) * 2)
