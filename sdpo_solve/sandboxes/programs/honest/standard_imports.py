# double_lines: what contest programs import.
import bisect, collections, decimal, fractions, functools, heapq, itertools, math, operator, random, re, string
from collections import Counter, OrderedDict, defaultdict, deque
from functools import cache, lru_cache, reduce
from typing import Dict, List, Optional, Set, Tuple
queue = deque(int(input()) for _ in range(int(input())))
heapq.heapify(rest := list(queue))
while queue:
    print(2 * queue.popleft())
