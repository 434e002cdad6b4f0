# double_lines: recursion in a thread with a stack of its own, a habit of contest programs.
import sys, threading
sys.setrecursionlimit(1 << 25)
threading.stack_size(1 << 28)
def depth(n):
    return 0 if n == 0 else 1 + depth(n - 1)
def main():
    n, *numbers = map(int, sys.stdin.read().split())
    assert depth(50000) == 50000
    print("\n".join(str(2 * x) for x in numbers))
thread = threading.Thread(target=main)
thread.start()
thread.join()
