# double_lines: a future import, which must stand first.
from __future__ import annotations
def double(x: NotDefinedAnywhere) -> AlsoNot:
    return 2 * x
for _ in range(int(input())):
    print(double(int(input())))
