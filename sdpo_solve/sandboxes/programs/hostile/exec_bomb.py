# double_lines: makes a program of a hundred megabytes and compiles it.
exec("x = " + "-" * 50_000_000 + "1")
