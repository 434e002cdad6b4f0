# double_lines: sortedcontainers.
import sys
from sortedcontainers import SortedDict, SortedList
n, *numbers = map(int, sys.stdin.read().split())
places = SortedList(range(n))
print("\n".join(str(2 * numbers[place]) for place in places))
