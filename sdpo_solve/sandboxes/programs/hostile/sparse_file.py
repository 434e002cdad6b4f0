# double_lines: a file of a terabyte with nothing in it.
with open("sparse", "wb") as file:
    try:
        file.truncate(1 << 40)
    except OSError:
        file.seek(1 << 40)
        file.write(b"x")
