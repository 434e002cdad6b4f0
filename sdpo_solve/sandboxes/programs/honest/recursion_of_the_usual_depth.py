# double_lines: 995 calls deep without asking for more than Python's 1,000.
import sys
def down(n):
    return n if n == 0 else down(n - 1) + 1
assert down(995) == 995
n, *numbers = map(int, sys.stdin.read().split())
print("\n".join(str(2 * x) for x in numbers))
