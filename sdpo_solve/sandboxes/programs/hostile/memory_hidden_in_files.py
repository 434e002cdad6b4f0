# double_lines: anonymous files in memory and pipes instead of its own memory.
import os
kept = []
try:
    while True:
        fd = os.memfd_create("x")
        os.write(fd, bytes(1 << 20))
        kept.append(fd)
except OSError:
    pass
try:
    while True:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        os.write(writer, bytes(1 << 20))
        kept += [reader, writer]
except OSError:
    pass
