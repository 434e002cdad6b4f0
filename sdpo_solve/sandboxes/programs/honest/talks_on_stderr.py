# double_lines: debug output on standard error, a lot of it.
import sys
for _ in range(int(input())):
    n = int(input())
    print("debug", n, file=sys.stderr)
    print(2 * n)
