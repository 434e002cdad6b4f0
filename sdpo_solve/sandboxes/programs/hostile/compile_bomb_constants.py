# double_lines: constants that the compiler would fold into gigabytes.
x = ((((((((((((((((((((((1,) * 20) * 20) * 20) * 20) * 20) * 20) * 20) * 20) * 20) * 20) * 20) * 20) * 20) * 20) * 20) * 20) * 20) * 20) * 20) * 20) * 20)
print(2)
