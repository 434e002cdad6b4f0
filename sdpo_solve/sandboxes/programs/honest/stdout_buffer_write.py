# double_lines: writes bytes to sys.stdout.buffer.
import sys
n, *numbers = map(int, sys.stdin.read().split())
sys.stdout.buffer.write(b"".join(b"%d\n" % (2 * x) for x in numbers))
