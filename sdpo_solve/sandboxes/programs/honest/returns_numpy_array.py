# double: a numpy array.
import numpy as np
def double(numbers):
    return np.array(numbers, dtype=np.int64) * 2
