# double_lines: reads with os.read until the end.
import os
data = b""
while chunk := os.read(0, 65536):
    data += chunk
print(*(2 * int(n) for n in data.split()[1:]), sep="\n")
