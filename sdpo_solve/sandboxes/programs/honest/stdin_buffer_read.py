# double_lines: the whole input at once from sys.stdin.buffer.
import sys
numbers = sys.stdin.buffer.read().split()[1:]
print("\n".join(str(2 * int(n)) for n in numbers))
