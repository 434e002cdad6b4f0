# tally: a function, a class, a module, a generator.
import os
def tally(words):
    return {"a": os, "b": tally, "c": (x for x in words), "d": object()}
