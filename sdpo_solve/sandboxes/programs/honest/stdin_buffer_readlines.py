# double_lines: all lines from sys.stdin.buffer.
import sys
first, *rest = sys.stdin.buffer.readlines()
sys.stdout.write("".join("%d\n" % (2 * int(line)) for line in rest))
