# double_lines: standard output wrapped in a writer whose flush is due when Python ends.
import io, os, sys
class Fast(io.IOBase):
    def __init__(self, file):
        self.fd, self.kept = file.fileno(), []
    def write(self, text):
        self.kept.append(text.encode())
    def flush(self):
        rest = memoryview(b"".join(self.kept))
        self.kept = []
        while rest:
            rest = rest[os.write(self.fd, rest):]
sys.stdout = Fast(sys.stdout)
def main():
    for _ in range(int(input())):
        print(2 * int(input()))
main()
