# double: a list of numpy integers.
import numpy as np
def double(numbers):
    return [np.int64(2) * n for n in numbers]
