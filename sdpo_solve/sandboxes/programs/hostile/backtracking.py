# double_lines: a regular expression that never returns to the interpreter.
import re
re.match(r"(a*)*b", "a" * 64)
