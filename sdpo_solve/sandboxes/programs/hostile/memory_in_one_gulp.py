# double_lines: takes eight gigabytes at once and touches them.
data = bytearray(8 << 30)
for i in range(0, len(data), 4096):
    data[i] = 1
print(len(data))
