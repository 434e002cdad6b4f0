# double_lines: swallows BaseException for ever.
def swallow():
    while True:
        try:
            while True:
                raise KeyboardInterrupt
        except BaseException:
            continue
swallow()
