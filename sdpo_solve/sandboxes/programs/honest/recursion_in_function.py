# double: raises the recursion limit itself and goes deep.
import sys
sys.setrecursionlimit(10**6)
def depth(n):
    return 0 if n == 0 else 1 + depth(n - 1)
def double(numbers):
    assert depth(40000) == 40000
    return [2 * n for n in numbers]
