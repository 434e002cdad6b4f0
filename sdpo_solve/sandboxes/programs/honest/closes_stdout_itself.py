# double_lines: closes its standard output at the end.
import sys
n, *numbers = map(int, sys.stdin.read().split())
sys.stdout.write("\n".join(str(2 * x) for x in numbers))
sys.stdout.close()
