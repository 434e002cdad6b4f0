# double_lines: SIGKILL for itself, which looks like an engine that ran out of memory.
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
