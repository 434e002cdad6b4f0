# tally: sorted keys and numpy values.
import numpy as np
def tally(words):
    keys, counts = np.unique(np.array(words, dtype=object).astype(str), return_counts=True)
    return {str(key): count for key, count in zip(keys, counts)}
