# tally: a Counter.
from collections import Counter
def tally(words):
    return Counter(words)
