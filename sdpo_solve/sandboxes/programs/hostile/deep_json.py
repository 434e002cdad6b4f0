# double: a list nested a million times.
def double(numbers):
    value = []
    for _ in range(10**6):
        value = [value]
    return value
