# double_lines: standard output replaced by a buffer that an exit handler writes out.
import atexit, io, sys
kept = sys.stdout = io.StringIO()
@atexit.register
def write():
    sys.__stdout__.write(kept.getvalue())
for _ in range(int(input())):
    print(2 * int(input()))
