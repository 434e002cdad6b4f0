# double_lines: recursion without an end, through C code.
import sys
sys.setrecursionlimit(2**31 - 1)
def down(n):
    return sum(map(down, [n]))
down(1)
