"""The learner: one LoRA step towards the self-teacher, given examples. Independent of methods.

May import `model`, `sandboxes` and the ground. Read `learner.py` (one update from examples to a new policy),
`examples.py` (attempts to token ids), `gradient.py`, `loss.py` (the paper's objectives), `teacher.py` (EMA,
trust region, frozen, live), then `head.py`, `packing.py` and `attention.py` (how it is computed cheaply),
`plain.py` (the same by the model's own forward), `passes_choice.py` (which of both), `optimizer.py`,
`health.py` (collapse) and `checkpoint.py` (resume).
"""
