"""Weights on disk and in memory: names and downloads, chat templates, and the adapted model that engine and
learner share.

May import the ground only. Read `names.py` (from a name to a directory), `files.py` (is it whole?),
`wheels.py` and `gguf.py` (the embedded model), `chat.py` (messages to token ids), `adapted.py` (base weights
with LoRA policies), `lora_layer.py`, `lora_experts.py`, `lora_mix.py` (several policies in one pass),
`device.py`, `memory.py` and `cpu.py` (what a machine has and can do).
"""
