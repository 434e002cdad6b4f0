# double_lines: NUL and bytes that are no UTF-8.
import os
os.write(1, b"2\x004\x006\n\xff\xfe\xc0\x80\xed\xa0\x80")
