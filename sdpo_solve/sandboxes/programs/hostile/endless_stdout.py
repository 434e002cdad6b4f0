# double_lines: prints for ever.
while True:
    print("2\n4\n6\n" * 1000)
