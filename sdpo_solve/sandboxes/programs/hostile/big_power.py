# double_lines: one operation that takes for ever and holds the interpreter.
print(len(str(3 ** (10 ** 9))))
