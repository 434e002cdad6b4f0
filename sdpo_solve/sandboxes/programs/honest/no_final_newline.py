# double_lines: no newline at the end.
import sys
n, *numbers = map(int, sys.stdin.read().split())
print("\n".join(str(2 * x) for x in numbers), end="")
