# double_lines: 15,000 calls deep through C code (sum over map), on the main stack; fewer where Python has a limit.
import sys
sys.setrecursionlimit(50000)
def down(n):
    return n if n == 0 else sum(map(down, [n - 1])) + 1
depth = 15000 if sys.version_info < (3, 12) else 500
assert down(depth) == depth
n, *numbers = map(int, sys.stdin.read().split())
print("\n".join(str(2 * x) for x in numbers))
