# double: changes its argument in place and returns it.
def double(numbers):
    for i in range(len(numbers)):
        numbers[i] *= 2
    return numbers
