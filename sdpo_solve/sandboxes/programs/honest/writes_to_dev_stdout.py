# double_lines: opens its standard streams by their names.
with open("/dev/stdin") as given:
    n, *numbers = map(int, given.read().split())
for name in ("/dev/fd/1", "/proc/self/fd/1"):
    with open(name, "w") as out:
        out.write(f"{2 * numbers.pop(0)}\n" if numbers else "")
with open("/dev/stdout", "a") as out, open("/dev/stderr", "w") as log:
    out.writelines(f"{2 * number}\n" for number in numbers)
    log.write("done\n")
