# double_lines: aborts.
import os
os.abort()
