"""The command that makes the table `_lcb_rows.json`: the statements of whole LiveCodeBench files, scanned.

python -m sdpo_solve.datasets._lcb_scan FILE-OR-RELEASE...

Rows of files that were scanned before stay in the table, each with the day of its scan.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

from sdpo_solve.datasets._lcb_rows import TABLE, Finding, scan
from sdpo_solve.datasets.livecodebench import rows


def main(sources: Sequence[str], table: Path = TABLE) -> None:
    """Add the rows with a finding to the table, or take out those that have none any more.

    Raises as `livecodebench.rows` does.
    """
    day = date.today().isoformat()
    before = json.loads(table.read_text(encoding="utf-8")) if table.exists() else {"scans": [], "rows": {}}
    scans, found = before["scans"], before["rows"]
    for source in sources:
        n_rows = 0
        for row in rows(source):
            n_rows += 1
            finding = scan(row.data)
            found.pop(row.data["question_id"], None)
            if finding != Finding():
                found[row.data["question_id"]] = {**asdict(finding), "scanned": day}
        name = Path(source).name
        scans = [
            *(each for each in scans if each["file"] != name),
            {"file": name, "n_rows": n_rows, "scanned": day},
        ]
    made = {"scans": scans, "rows": dict(sorted(found.items()))}
    table.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
