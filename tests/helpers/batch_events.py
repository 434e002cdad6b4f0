"""Events of a small batch, as its receivers get them."""

from sdpo_solve.batch.event_bus import RunEnded
from sdpo_solve.batch.spec import RunKey


def ended(n: int, **fields) -> dict:
    key = RunKey(n, "inc", "sdpo")
    figures = {"status": "finished", "attempts": 8, "tokens": 40, "wall_s": 65.0, **fields}
    return RunEnded.of(key, **figures).as_event()


STARTED = {"event": "batch_started", "runs": 4, "methods": ["sdpo"], "out": "runs/b"}
EVENTS = [
    STARTED,
    ended(0, kept=True),
    ended(1, solved=True, discovery_time=3),
    ended(2, status="failed", error="the \x1b[31mbox broke\nbadly", may_retry=True),
    ended(2, status="failed", error="the \x1b[31mbox broke\nbadly"),
    {"event": "sampling", "run": "inc/sdpo/seed-3", "size": 16},
    {"event": "notice", "text": "the sandbox is gone"},
]
