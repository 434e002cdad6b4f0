# double: answers only at a second call in one process.
calls = []
def double(numbers):
    calls.append(1)
    return [2 * n for n in numbers] if len(calls) > 1 else []
