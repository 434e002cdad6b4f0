"""The command that makes the table `_lcb_rows.json`: the statements of whole LiveCodeBench files, scanned.

python -m sdpo_solve.datasets._lcb_scan FILE-OR-RELEASE...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date

from sdpo_solve.datasets._lcb_rows import Finding, scan
from sdpo_solve.datasets.livecodebench import rows


def main(sources: Sequence[str]) -> None:
    """Print the table: every row with a finding, and how many rows were looked at."""
    findings = {row.data["question_id"]: scan(row.data) for source in sources for row in rows(source)}
    kept = {name: asdict(each) for name, each in sorted(findings.items()) if each != Finding()}
    table = {"scanned": date.today().isoformat(), "n_rows": len(findings), "rows": kept}
    sys.stdout.write(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
