# double_lines: output through a file of its own that a function uses and nobody closes.
import sys
out = open(1, "w")
def main():
    n, *numbers = map(int, sys.stdin.read().split())
    out.write("\n".join(str(2 * x) for x in numbers))
main()
