# double_lines: the exit() that the site module gives.
n = int(input())
for _ in range(n):
    print(2 * int(input()))
exit()
