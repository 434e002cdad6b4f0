# double_lines: lets short-lived children use the processor in its place.
import os
while True:
    try:
        if os.fork() == 0:
            os.setsid()
            for _ in range(10**6):
                pass
            os._exit(0)
        os.wait()
    except OSError:
        pass
