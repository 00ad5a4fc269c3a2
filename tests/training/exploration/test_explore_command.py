"""``twinloop explore`` from a file to its folder, the plant included."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from twinloop.__main__ import main
from twinloop.envs.configuration import load
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line.config import FixedLine, LineConfig
from twinloop.training.exploration.configuration import ExploreConfiguration
from twinloop.training.exploration.evaluation import Evaluator
from twinloop.training.exploration.verification import check_verification

CONFIGS = Path(__file__).parents[3] / "configs"
SHIPPED = CONFIGS / "production_line" / "explore_buffers.yaml"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/explore_*.yaml")), ids=lambda p: p.stem)
def test_shipped_explorations_fit_their_sites(path: Path) -> None:
    config = load(path, ExploreConfiguration)
    check_verification(config, Evaluator(config))


def test_the_shipped_exploration_leaves_front_picture_designs_and_the_plants_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {
        "search.prototypes": 200,
        "rounds": [{"periods": 8, "seeds": 1, "keep": 12}, {"periods": 20, "warm_up_periods": 2, "seeds": 6}],
        "verify": {"best": 1, "plant": {"kind": "simpy", "seed": 1}, "periods": 30, "warm_up_periods": 2, "seeds": 2},
    }
    words = [word for key, value in small.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    assert main(["explore", str(SHIPPED), "--out", str(tmp_path), *words]) == 0
    assert "prototypes refused by limits or the site" in capsys.readouterr().out

    data = json.loads((tmp_path / "front.json").read_text(encoding="utf-8"))["data"]
    assert data["prototypes"] == 200
    assert len(data["candidates"]) == 12
    first, today = data["candidates"][0], data["today"]
    assert first["on_front"]
    for one in (first, today):
        twin, plant = one["figures"][0], one["plant"][0]
        assert abs(plant["estimate"] / twin["estimate"] - 1.0) < 0.06  # other physics, the same line
    assert first["plant"][0]["estimate"] > today["plant"][0]["estimate"]  # better there too
    assert data["candidates"][1]["plant"] is None

    design = yaml.safe_load((tmp_path / "designs" / "01.yaml").read_text(encoding="utf-8"))["site"]
    built = LineConfig.model_validate(design).line
    assert isinstance(built, FixedLine)
    assert [built.capacities[k] for k in range(4)] == [first["values"][f"buffer{k + 1}_capacity"] for k in range(4)]
    kept = np.load(tmp_path / "evaluated.npz")
    assert kept["values"].shape == (200, 8)
    assert kept["figures"].shape == (200, 3)
    assert (kept["values"][:, :4].sum(1) <= 24.0).all()
    assert (tmp_path / "front.png").stat().st_size > 10_000
    assert (tmp_path / "front.csv").read_text(encoding="utf-8").startswith(",buffer1_capacity,")
    again = load(tmp_path / "configuration.yaml", ExploreConfiguration)
    assert again == load(SHIPPED, ExploreConfiguration, [f"{k}={json.dumps(v)}" for k, v in small.items()])


def test_objectives_that_no_plant_shows_cannot_be_verified() -> None:
    config = load(SHIPPED, ExploreConfiguration, ["objectives.throughput.signal=machine/finished",
                                                "objectives.energy.per=machine/finished"])  # fmt: skip
    with pytest.raises(ConfigurationError, match="no objective can be read on a plant"):
        check_verification(config, Evaluator(config))
