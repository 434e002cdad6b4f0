# double: lone surrogates in a value and in a message.
def double(numbers):
    if len(numbers) > 1:
        raise ValueError("\ud800")
    return ["\udfff"]
