"""Which of Sparkplug's assertions apply to us, and that each that we say is tested has its test.

``sparkplug_assertions.csv`` has the identifiers of the Sparkplug 3.0.0 specification (``tck-id-...`` in
eclipse-sparkplug/sparkplug, ``specification/src/main/asciidoc/chapters``), without that prefix.
"""

from __future__ import annotations

import ast
import csv
import re
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
STATUSES = ("tested", "in part", "left out", "not applicable")
with (HERE / "sparkplug_assertions.csv").open(newline="") as _file:
    ROWS = list(csv.reader(_file))[1:]


def test_all_assertions_of_the_specification_have_one_status_each() -> None:
    assert len({name for name, _, _ in ROWS}) == len(ROWS) == 299
    assert all(status in STATUSES and why for _, status, why in ROWS)


def test_each_that_is_tested_names_a_test_that_exists() -> None:
    named = {why for _, status, why in ROWS if status == "tested"}
    there = {
        f"{path.name}::{node.name}"
        for path in HERE.glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    assert named <= there, sorted(named - there)


def test_the_page_for_users_has_the_same_counts() -> None:
    counts = Counter(status for _, status, _ in ROWS)
    page = (HERE.parents[2] / "docs" / "mqtt.md").read_text(encoding="utf-8")
    told = {
        status: int(n)
        for status, n in re.findall(r"^\| (tested|in part|left out|not applicable) \| (\d+) \|", page, re.M)
    }
    assert told == counts
    apply = 299 - counts["not applicable"]
    assert f"{apply} apply, {100 * counts['tested'] / apply:.1f} % of them are tested" in page
