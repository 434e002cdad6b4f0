# tally: a value that is small in memory and huge on the wire.
def tally(words):
    row = [0] * 10**4
    return [row] * 10**4
