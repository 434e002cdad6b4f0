"""Why the policy changed: where the teacher disagreed token by token, and how the answers moved after it.

`records` holds what was scored and what is counted of it, `score` runs the model (the only file that needs
torch), `policies` reads what a run's journal holds, `text` and `html` draw.
"""
