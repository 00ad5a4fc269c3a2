from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from twinloop.envs.configuration import dump, load
from twinloop.envs.errors import ConfigurationError
from twinloop.training.configuration import TrainConfiguration, training_model

BASE = """\
kind: train
name: row3
site: {kind: wind_farm, layout: {kind: named, name: row3_5d}, dt_s: 60}
task: {name: farm_power}
encoder: {name: relational}
learner: {kind: ppo, controlled: {turbine: [yaw_offset_deg]}, lr: 1e-3, gamma: 0}
rollout: {replicas: 32, shard_replicas: 8, steps: 16, workers: 2}
iterations: 10
"""


def read(tmp_path: Path, *overrides: str, text: str = BASE) -> Any:
    path = tmp_path / "train.yaml"
    path.write_text(text)
    return load(path, training_model(path, overrides), overrides)


def test_a_configuration_holds_the_sites_own_model(tmp_path: Path) -> None:
    config = read(tmp_path, "learner.lr=1e-4", "site.layout.name=grid3x3_5d")
    assert isinstance(config, TrainConfiguration)
    assert type(config.site).__name__ == "WindFarmConfig"
    assert config.site.model_dump()["layout"]["name"] == "grid3x3_5d"
    assert config.learner.model_dump()["lr"] == 1e-4
    assert config.rollout.n_shards == 4


def test_what_is_dumped_loads_as_an_equal_one(tmp_path: Path) -> None:
    config = read(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(dump(config))
    assert load(path, training_model(path)).model_dump() == config.model_dump()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rollout.replicas=30", "replicas 30 is not a multiple of shard_replicas 8"),
        ("rollout.workers=5", "workers 5 exceeds the 4 shards"),
        ("learner.sequence_steps=8", r"learner\.sequence_steps is for a recurrent layer; set learner\.gru"),
        ("learner.minibatches=7", r"learner\.minibatches 7 does not divide the 512 steps"),
        ("agent_steps=1000", "either iterations or agent_steps"),
        ("iterations=null", "either iterations or agent_steps"),
        ("learner.log_std_initial=-6", r"log_std_initial -6.* is below"),
        ("learner.clp=0.1", r"learner\.clp.*did you mean 'clip'"),
        ("learner.clip=1.5", r"learner\.clip"),
        ("learner.gamma=1.01", r"learner\.gamma"),
        ("site.kind=windfarm", "did you mean 'wind_farm'"),
        ("site.dt=60", r"site\.dt.*did you mean 'dt_s'"),
        ("site=row3", "needs a mapping with a kind"),
        ("keep_checkpoints=1", "keep_checkpoints"),
        ("name=a/b", "name"),
    ],
)
def test_conflicts_and_typing_errors_are_said_at_load(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read(tmp_path, override)


def test_a_file_of_another_kind_is_told_so_and_nothing_else() -> None:
    demo = Path(__file__).parents[2] / "configs" / "wind_farm" / "demo.yaml"
    with pytest.raises(ConfigurationError) as caught:
        load(demo, training_model(demo))
    assert str(caught.value) == f"{demo}: kind: 'demo'; must be 'train'"


def test_loading_a_configuration_imports_neither_torch_nor_ray(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(BASE)
    code = (
        "import sys\n"
        "from twinloop.envs.configuration import load\n"
        "from twinloop.training.configuration import training_model\n"
        f"load({str(tmp_path / 'train.yaml')!r}, training_model({str(tmp_path / 'train.yaml')!r}))\n"
        "sys.exit(', '.join({'torch', 'ray', 'floris'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 0
