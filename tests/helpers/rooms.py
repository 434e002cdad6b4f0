"""The rooms of the package and what each may import, besides itself."""

GROUND = {"types", "errors", "sanitize", "paths", "registry", "config", "protocols"}
SHARED = {"sandboxes", "model"} | GROUND
RUNNING = {"grading", "methods", "learner", "engines"} | SHARED
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "types": {"errors"},
    "sanitize": {"errors"},
    "paths": {"errors"},
    "registry": {"errors"},
    "config": {"errors", "types"},
    "protocols": {"errors", "types"},
    "sandboxes": GROUND,
    "model": GROUND,
    "engines": SHARED,
    "learner": SHARED,
    "methods": {"learner"} | SHARED,
    "grading": SHARED,
    "run": RUNNING,
    "datasets": RUNNING - {"methods", "learner", "engines"},
    "solve": {"run", "datasets"} | RUNNING,
    "report": {"solve", "run", "datasets"} | RUNNING,
    "batch": {"report", "solve", "run", "datasets"} | RUNNING,
    "bench": {"batch", "report", "solve", "run", "datasets"} | RUNNING,
    "cli": {"bench", "batch", "report", "solve", "run", "datasets"} | RUNNING,
}
