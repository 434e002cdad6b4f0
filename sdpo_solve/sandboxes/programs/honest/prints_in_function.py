# double: prints while it computes, and at import.
print("import")
def double(numbers):
    print(numbers)
    return [n + n for n in numbers]
print({"values": [1, 2, 3]})
