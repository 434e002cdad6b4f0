# double_lines: reads file descriptor 0 by number.
numbers = open(0).read().split()[1:]
for n in numbers:
    print(int(n) * 2)
