"""What docs/learners.md says of learners is what configurations take and refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from twinloop.envs.configuration import load
from twinloop.envs.errors import ConfigurationError
from twinloop.training.configuration import TrainConfiguration, training_model

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "learners.md").read_text(encoding="utf-8")
BASE = ROOT / "configs" / "foreign" / "simple_spread.yaml"
SNIPPETS = [yaml.safe_load(line)["learner"] for line in PAGE.splitlines() if line.startswith("learner: {")]


def configured(learner: dict[str, Any], *overrides: str) -> TrainConfiguration:
    """A run with this learner and nothing else of its own, 8 replicas of 64 steps."""
    told = [
        "learner=null", f"learner={yaml.safe_dump(learner, default_flow_style=True, width=10_000).strip()}",
        "rollout=null", "rollout={replicas: 8, steps: 64}", "agent_steps=null", "iterations=10", *overrides,
    ]  # fmt: skip
    return load(BASE, training_model(BASE, told), told)


def test_every_snippet_is_a_learner() -> None:
    assert [configured(learner).learner.kind for learner in SNIPPETS] == [s["kind"] for s in SNIPPETS]
    assert {s["kind"] for s in SNIPPETS} == {"ppo", "mappo", "happo", "masac", "analytic", "taught", "sb3"}


COLUMNS: dict[str, dict[str, Any]] = {
    "ppo, mappo": {"kind": "mappo"},
    "happo": {"kind": "happo"},
    "masac": {"kind": "masac"},
    "analytic": {"kind": "analytic"},
    "analytic + short_horizon": {"kind": "analytic", "short_horizon": {}},
    "taught": {"kind": "taught"},
    "sb3": {"kind": "sb3"},
    "sb3 + federated": {"kind": "sb3", "federated": {}},
}
ROWS = {
    "`shield`": ("shield={}",),
    "`rollout.workers`, `shard_replicas`": ("rollout.workers=2", "rollout.shard_replicas=4"),
    "`rollout.overlap`": ("rollout.overlap=true",),
    "`learner_actors`": ("learner_actors={}",),
    "length by `agent_steps`": ("iterations=null", "agent_steps=10000"),
}


@pytest.mark.parametrize("row", list(ROWS))
@pytest.mark.parametrize("column", list(COLUMNS))
def test_the_table_says_what_configurations_take(row: str, column: str) -> None:
    table = [[c.strip() for c in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]
    head = next(cells for cells in table if "masac" in cells)
    said = next(cells for cells in table if cells[0] == row)[head.index(column)]
    if said.startswith("yes"):
        configured(COLUMNS[column], *ROWS[row])
    else:
        with pytest.raises(ConfigurationError):
            configured(COLUMNS[column], *ROWS[row])
