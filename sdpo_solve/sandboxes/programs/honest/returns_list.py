# double: the plain answer.
def double(numbers):
    return [2 * n for n in numbers]
