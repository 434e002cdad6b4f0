# double: a tuple where a list is expected.
def double(numbers):
    return tuple(2 * n for n in numbers)
