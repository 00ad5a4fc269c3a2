"""What a case of arms that each decide for themselves leaves behind: read from journals and screens, told in rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...deploy.journal import read
from ...deploy.station.hearing import told as told_words
from ..report import Cell
from .cell_edge_scene import Arm

_GOES_ON = ("none", "station", "twin", "link")  # cases in which nothing is lost that an arm's work needs for long
_CODE = 2  # of a reason, in a row
_STAMP = re.compile(r"^(?:\[[^]]*\])?\s*")
_SOURCE = re.compile(r"\s+\w+\.py:\d+\s*$")


def rows_of(case: str, found: dict[str, Any]) -> tuple[list[tuple[Cell, ...]], bool]:
    """A case's rows ``(case, what, seen, bar, met)``, and whether all its bars are met."""
    bad = sum(n for kind, n in found["contacts"].items() if kind != "person_at_standstill")
    is_met = bad == 0
    rows: list[tuple[Cell, ...]] = [(case, *row) for row in _told(found)]
    rows.append((case, "contacts", _counts(found["contacts"]), "0", _yes(bad == 0)))
    torch = _each(found["torch"])
    rows.append((case, "libraries of torch in the arms' processes", torch, "0", _yes(not any(found["torch"]))))
    is_met &= not any(found["torch"])
    if case in _GOES_ON:
        after = found["touches"][1]
        rows.append((case, "touches of each arm after half time", _each(after), "> 0", _yes(min(after) > 0)))
        is_met &= min(after) > 0
    return rows, is_met


def journalled(arm: Arm, half_s: float) -> dict[str, Any]:
    """What an arm's journal and screen tell."""
    rows = read(arm.journal)
    decided = [row for row in rows if row["kind"] == "decision"]
    took = [row["decided_in_ms"] for row in decided]
    later = Counter(r[_CODE] for row in decided if row["plant_time_s"] > half_s for r in row["reasons"])
    end = rows[-1] if rows[-1]["kind"] == "end" else {"ending": "killed", "detail": ""}
    words = arm.printed.read_text(errors="replace").replace(f"{arm.printed.parent}/", "").splitlines()
    return {
        "decisions": len(decided),
        "missed": sum(row["kind"] == "missed" for row in rows),
        "decided_ms": np.percentile(took, (50, 99, 100)).tolist() if took else [],
        "reasons_after": dict(later.most_common(6)),
        "ending": f"{end['ending']} {end['detail']}".strip(),
        "histogram": next((w.split(None, 1)[1].strip() for w in words if w.startswith("decisions")), ""),
        "said": [_line(w) for kind in ("ERROR", "WARNING") for w in words if kind in w][:6],
        "missed_of_beside": [told_words(row) for row in rows if row["kind"] == "beside"],
    }


def _told(found: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    before, after = found["touches"]
    yield "touches before and after half time", f"{before} {after}", "", ""
    for k, arm in enumerate(found["arms"]):
        times = " / ".join(f"{ms:.1f}" for ms in arm["decided_ms"])
        yield f"arm_{k + 1}: decided in, ms, p50 / p99 / max", f"{times} ({arm['decisions']})", "", ""
        yield f"arm_{k + 1}: latency with the write", arm["histogram"] or "none", "", ""
        yield f"arm_{k + 1}: missed; ended", f"{arm['missed']}; {arm['ending']}", "", ""
        yield f"arm_{k + 1}: reasons in the journal after half time", _counts(arm["reasons_after"]), "", ""
        if arm["said"]:
            yield f"arm_{k + 1}: said first", arm["said"][0].split(";")[0], "", ""
        if arm["missed_of_beside"]:
            yield f"arm_{k + 1}: on its terminal and in its journal", ", then ".join(arm["missed_of_beside"]), "", ""
    beside = found["beside"]
    if beside:
        was = beside["before"]
        gate = f"open, NIS {was['nis']:.2f}" if was["open"] else was["why"]
        yield "before: live twin; pages", f"{was['lag']} rows behind, {gate}; {_answer(was['pages'])}", "", ""
        yield "after: pages", _answer(beside["pages_after"]), "", ""
        yield "twinloop overview while the folder is away", "; ".join(beside["away"]), "", ""
        yield "twinloop overview at the end", "; ".join(beside["overview"]), "", ""
        yield "libraries of torch in the twin's process", str(was["torch"]), "", ""


def _line(printed: str) -> str:
    """A log line without its time and source."""
    return " ".join(_SOURCE.sub("", _STAMP.sub("", printed)).split())


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _each(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _answer(is_there: bool) -> str:
    return "pages answer" if is_there else "pages do not answer"


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counted.items() if n) or "none"
