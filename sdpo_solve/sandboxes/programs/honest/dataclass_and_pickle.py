# double_lines: classes that look themselves up in their module.
import copy, pickle, sys
from dataclasses import dataclass
@dataclass(frozen=True, order=True)
class Number:
    value: int
n, *numbers = map(int, sys.stdin.read().split())
again = pickle.loads(pickle.dumps([Number(x) for x in numbers]))
print("\n".join(str(2 * copy.copy(x).value) for x in again))
