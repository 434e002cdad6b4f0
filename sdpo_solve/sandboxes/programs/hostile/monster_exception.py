# double_lines: an exception whose message and chain are huge.
class Loud(Exception):
    def __str__(self):
        return "x" * (1 << 26)
def fail(n):
    try:
        fail(n - 1) if n else 1 / 0
    except Exception as exc:
        raise Loud() from exc
fail(50)
