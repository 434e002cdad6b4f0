"""Why the policy changed: where the teacher disagreed token by token, and how the answers moved after it.

`signal` holds the records and what is counted of them, `scores` runs the model (the only file that needs
torch), `moves` reads what a run's journal says, `text` and `page` draw.
"""
