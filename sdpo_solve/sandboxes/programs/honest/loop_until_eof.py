# double_lines: input() until EOFError.
input()
while True:
    try:
        n = int(input())
    except EOFError:
        break
    print(n + n)
