# double_lines: spaces at the end of each line and empty lines at the end.
import sys
n, *numbers = map(int, sys.stdin.read().split())
print(" \n".join(str(2 * x) for x in numbers), " \n\n")
