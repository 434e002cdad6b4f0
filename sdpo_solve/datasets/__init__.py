"""Formats: files of others (and ours) in, `Problem` records out. One format, one file."""
