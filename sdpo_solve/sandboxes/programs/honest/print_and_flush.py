# double_lines: flushes after every line.
for _ in range(int(input())):
    print(2 * int(input()), flush=True)
