"""The command line: one file a command, and the live views of a terminal.

Parses what a user writes, calls the other rooms and prints; decides nothing but exit codes. It may import
every room. Start with `main.py` (the application and the exit codes) and `flags.py` (options as flags), then
the command of interest; the `live_*` files draw journal events while something runs.
"""
