"""The part of a sandbox that runs inside the box. Its source travels there; standard library only.

`runner` is the box's main loop, `slots` the user ids and limits a test gets, `forks` pre-forked launchers,
`process` one test's process, `wire` the frames between host and box, `launcher` what runs a Python program.
"""
