# double_lines: one line of a megabyte.
print("2 " * (1 << 19))
