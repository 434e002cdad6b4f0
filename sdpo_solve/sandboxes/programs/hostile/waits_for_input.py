# double_lines: waits for input that never comes.
import os
reader, writer = os.pipe()
os.read(reader, 1)
