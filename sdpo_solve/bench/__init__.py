"""Figures measured on this machine, as ratios within one run; one file a figure, `sdpo-solve bench NAME`.

May import every room but `cli`. `update`: an SDPO update against its plain form and the machine's matrix
rate; `sampling`: the engine against plain `generate`; `grading`: attempts a second in the sandbox; `lesson`:
what updates of several settings teach; `forgetting`: what a learned adapter does to other problems.
"""
