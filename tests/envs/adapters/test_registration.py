"""Sites are found under Gymnasium ids, in a process that has imported the adapters and nothing else."""

from __future__ import annotations

import doctest
import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode
from pettingzoo.test import parallel_api_test, parallel_seed_test

from twinloop.envs.adapters import TwinEnv, TwinParallelEnv, TwinVectorEnv, environment_id, register, registration
from twinloop.envs.adapters.registration import make_env
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.registry import load_site
from twinloop.envs.wind_farm.config import NamedLayout, WindFarmConfig

WIND_FARM = "twinloop/WindFarm-v0"


def run(code: str) -> str:
    """Run ``code`` in a new interpreter with every warning an error."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_adapters_before_or_after_gymnasium_is_enough() -> None:
    made = f"print(gymnasium.make({WIND_FARM!r}, task_options=dict(horizon=5)).unwrapped)"
    assert "TwinEnv" in run(f"import gymnasium, twinloop.envs.adapters; {made}")
    assert "TwinEnv" in run(f"import twinloop.envs.adapters, gymnasium; {made}")


def test_the_id_can_name_the_module_to_import() -> None:
    assert "TwinEnv" in run(f"import gymnasium; print(gymnasium.make('twinloop.envs.adapters:{WIND_FARM}').unwrapped)")


def test_registering_imports_no_torch() -> None:
    heavy = "[m for m in ('torch', 'floris', 'pettingzoo', 'ray', 'stable_baselines3') if m in sys.modules]"
    assert run(f"import sys, twinloop.envs.adapters; print({heavy})").strip() == "[]"


def test_examples_in_docstrings_run() -> None:
    assert doctest.testmod(registration) == (0, 1)


def test_ids_follow_from_site_names() -> None:
    assert environment_id("wind_farm") == WIND_FARM
    assert environment_id("power_grid") == "twinloop/PowerGrid-v0"


def test_registering_twice_changes_nothing() -> None:
    before = gymnasium.registry[WIND_FARM]
    register()
    assert gymnasium.registry[WIND_FARM] is before


def test_a_wind_farm_passes_gymnasiums_check() -> None:
    env = gymnasium.make(WIND_FARM, normalised_actions=True, task_options={"horizon": 20})
    check_env(env.unwrapped, skip_render_check=True)


def test_the_configuration_may_be_a_model_or_a_mapping() -> None:
    model = WindFarmConfig(layout=NamedLayout(name="turb3_row1"))
    envs = [make_env("wind_farm", config) for config in (model, {"layout": {"kind": "named", "name": "turb3_row1"}})]
    first, second = (env.reset(seed=1)[0] for env in envs)
    np.testing.assert_array_equal(first, second)


def test_a_vector_of_wind_farms_equals_single_ones() -> None:
    options: dict[str, Any] = {"config": {"sensors": {"vane_noise_deg": 2.0}}, "task_options": {"horizon": 3}}
    env = gymnasium.make_vec(WIND_FARM, num_envs=3, **options)
    assert isinstance(env, TwinVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    reference = gymnasium.make_vec(WIND_FARM, num_envs=3, vectorization_mode="sync", **options)
    assert data_equivalence(env.reset(seed=8), reference.reset(seed=8), exact=True)
    env.action_space.seed(0)
    for _ in range(7):
        action = env.action_space.sample()
        assert data_equivalence(env.step(action), reference.step(action), exact=True)


def test_the_autoreset_mode_can_be_chosen() -> None:
    env = gymnasium.make_vec(WIND_FARM, num_envs=2, autoreset_mode="SameStep", task_options={"horizon": 1})
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    env.reset(seed=0)
    *_, truncations, infos = env.step(env.action_space.sample())
    assert truncations.all()
    assert infos["_final_obs"].all()


@pytest.mark.parametrize(
    "layout", [{"kind": "named"}, {"kind": "random", "n_min": 3, "n_max": 3}], ids=lambda v: v["kind"]
)
def test_a_wind_farm_passes_pettingzoos_suite(layout: dict[str, Any]) -> None:
    site = load_site("wind_farm")
    config = WindFarmConfig.model_validate({"layout": layout})

    def make() -> TwinParallelEnv:
        env = gymnasium.make(WIND_FARM, config=config, task_options={"horizon": 10}).unwrapped
        assert isinstance(env, TwinEnv)
        return TwinParallelEnv(env.twin, site.task("farm_power", config, {"horizon": 10}))

    parallel_api_test(make(), num_cycles=20)
    parallel_seed_test(make, num_cycles=8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"config": {"layout": {"kind": "named", "nmae": "row3_5d"}}}, r"WindFarm-v0: config.*nmae.*did you mean"),
        ({"config": 3}, r"config is a int; give a mapping or a WindFarmConfig"),
        ({"dtype": "float16"}, r"dtype 'float16'; must be one of float32, float64"),
        ({"task": "farm_powr"}, r"no task 'farm_powr'.*did you mean 'farm_power'"),
    ],
)
def test_what_can_not_be_used_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        gymnasium.make(WIND_FARM, **options)
