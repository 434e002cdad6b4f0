# double_lines: a global statement at module level, and one in a function.
global total
total = 0
def read():
    global total
    total = int(input())
read()
for _ in range(total):
    print(2 * int(input()))
