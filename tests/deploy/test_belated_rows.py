"""Rows stand in the journal in the order in which the loop went on, whatever its threads do meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.deploy.audit.pumps import run_pumps

from twinloop.deploy.decider import Decided, Decider, Question
from twinloop.deploy.journal import read


def test_a_row_that_is_told_while_a_decision_is_written_stands_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A decision that is claimed at the last moment: the loop has waited long enough, and tells of the period as missed.
    decide = Decider.decide

    def raced(self: Decider, asked: Question) -> Decided | None:
        claim = asked.ticket.claim

        def claim_and_tell() -> bool:
            claimed = claim()
            self.belated.append({"kind": "told", "number": asked.number})
            return claimed

        monkeypatch.setattr(asked.ticket, "claim", claim_and_tell, raising=True)
        return decide(self, asked)

    monkeypatch.setattr(Decider, "decide", raced)
    run_pumps(tmp_path / "journal", 5)
    order = [(row["kind"], row["number"]) for row in read(tmp_path / "journal") if "number" in row]
    expected = [(kind, number) for number in range(1, 6) for kind in ("decision", "told")]
    assert [pair for pair in order if pair[1] <= 5] == expected
