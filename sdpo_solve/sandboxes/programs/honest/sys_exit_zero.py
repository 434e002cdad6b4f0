# double_lines: sys.exit(0) at the end, in a function.
import sys
def main():
    n, *numbers = map(int, sys.stdin.read().split())
    print("\n".join(str(2 * x) for x in numbers))
    sys.exit(0)
main()
