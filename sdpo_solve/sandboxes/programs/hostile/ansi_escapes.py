# double_lines: clears the screen, sets a title and overwrites a line of the terminal.
print("\x1b[2J\x1b[H\x1b]0;accepted\x07\x1b[1;32maccepted\x1b[0m\r2\x08\x9b2J")
