# double_lines: keeps a small file in its working directory and in the directory for temporary files.
import sys, tempfile
n, *numbers = map(int, sys.stdin.read().split())
with open("scratch.txt", "w") as file:
    file.write("\n".join(str(2 * x) for x in numbers))
with tempfile.TemporaryFile("w+") as file:
    file.write(open("scratch.txt").read())
    file.seek(0)
    print(file.read())
