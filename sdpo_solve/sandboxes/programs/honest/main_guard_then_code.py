# double_lines: a main guard with code after it.
def main():
    for _ in range(int(input())):
        out.append(str(2 * int(input())))
out = []
if __name__ == "__main__":
    main()
print("\n".join(out))
