"""The part of a sandbox that runs inside the box. Its source travels there; standard library only.

`runner` is the box's main loop, `slots` the user ids and limits of a test, `process` one test's process,
`proc` the table of processes, `forkserver` what Python tests are forked from, `launcher` what runs
a Python program in its test, `wire` the frames between host and box.
"""
