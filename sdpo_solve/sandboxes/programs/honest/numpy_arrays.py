# double_lines: reads, computes and prints with numpy.
import sys
import numpy as np
numbers = np.array(sys.stdin.read().split()[1:], dtype=np.int64)
print("\n".join(map(str, numbers * 2)))
