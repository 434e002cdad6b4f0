# tally: a defaultdict.
from collections import defaultdict
def tally(words):
    counts = defaultdict(int)
    for word in words:
        counts[word] += 1
    return counts
