"""A short walk through the benchmark of the audit: every kind of change is found, two of them by heads alone."""

from __future__ import annotations

from pathlib import Path

from twinloop.training.benchmarks.audit_tampering import TAMPERS, tampering


def test_every_kind_of_change_is_found_at_its_row(tmp_path: Path) -> None:
    n_trials = 10 * len(TAMPERS)
    table, all_found = tampering(tmp_path, n_trials, 9, seed=1)
    assert all_found
    assert [row[0] for row in table.rows] == list(TAMPERS)
    by_name = {str(row[0]): row[1:] for row in table.rows}
    assert all(row[:3] == (10, 10, 10) for row in by_name.values())
    alone = {name: row[3] for name, row in by_name.items()}
    assert alone["truncated"] == alone["written anew"] == 0
    assert alone["one byte"] == alone["one row with its hash"] == alone["deleted"] == alone["closed gap"] == 10
