# double: a list that holds itself.
def double(numbers):
    value = []
    value.append(value)
    return value
