"""Assets that learn apart. One Ray session serves all tests of this file: starting one costs seconds."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from pydantic import ValidationError
from tests.lever_site import LeverConfig, lever_configuration, lever_problem
from tests.sb3_cases import OFF_POLICY, ON_POLICY

from twinloop.envs.errors import NumericalError, RunError
from twinloop.training.configuration import TrainConfiguration
from twinloop.training.federated_site import FederatedSite
from twinloop.training.federated_trainer import FederatedTrainer
from twinloop.training.run import resume, train
from twinloop.training.run_folder import RunFolder


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    # "local": without it Ray joins any cluster that it finds running.
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def configuration(
    algorithm: str = "PPO", federated: dict[str, Any] | None = None, **changes: Any
) -> TrainConfiguration:
    options = OFF_POLICY if algorithm == "SAC" else {**ON_POLICY, "policy_kwargs": {"net_arch": [4]}}
    learner = {"kind": "sb3", "algorithm": algorithm, "options": options, "federated": federated or {}}
    config: TrainConfiguration = lever_configuration(learner, **changes)
    return config


def trainer_of(config: TrainConfiguration) -> FederatedTrainer:
    return FederatedTrainer(config, lever_problem(config))


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for v in value.values() for leaf in leaves(v)]
    if isinstance(value, list | tuple):
        return [leaf for v in value for leaf in leaves(v)]
    return [value]


def same(a: Any, b: Any) -> bool:
    """Bit for bit."""
    pairs = zip(leaves(a), leaves(b), strict=True)
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


def without_restarts(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name != "restarts"}


def test_an_actor_that_dies_catches_up_bit_for_bit() -> None:
    with trainer_of(configuration("PPO", {"average_every": 2})) as trainer:
        begun = trainer.boundary()()
        figures = [trainer.iterate() for _ in range(4)]
        learnt = trainer.boundary()()["sites"]
        trainer.restore(begun)
        repeated = [trainer.iterate(), trainer.iterate(), trainer.iterate()]
        os.kill(trainer.process_ids()[1], signal.SIGKILL)  # three rounds and a mean after what is known of it
        repeated.append(trainer.iterate())
        assert repeated[-1]["restarts"] == 1.0
        assert [without_restarts(f) for f in repeated] == [without_restarts(f) for f in figures]
        assert same(trainer.boundary()()["sites"], learnt)
        assert trainer.export()["lever"].n_stacks == 1


def test_a_states_folder_keeps_experience_at_the_site(tmp_path: Path) -> None:
    with trainer_of(configuration("SAC", {"state_dir": str(tmp_path / "site")})) as trainer:
        trainer.iterate()
        kept = trainer.boundary()()
        assert not [leaf for leaf in leaves(kept) if isinstance(leaf, torch.Tensor)]
        files = sorted(p.name.split("-", 1)[1] for p in (tmp_path / "site").iterdir())
        assert files == ["lever-L1-1.pt", "lever-L2-1.pt"]
        figures = [trainer.iterate(), trainer.iterate()]
        trainer.restore(kept)
        assert trainer.iterate() == figures[0]
        os.kill(trainer.process_ids()[0], signal.SIGKILL)
        assert without_restarts(trainer.iterate()) == without_restarts(figures[1])
        assert trainer.export()["lever"].n_stacks == 2
        next((tmp_path / "site").glob("*L2-1.pt")).write_bytes(b"another")
        with pytest.raises(RunError, match=r"state of asset lever-L2 is not here, or is not the one"):
            trainer.restore(kept)


def test_a_run_that_stopped_and_resumed_is_what_the_sites_learn_alone(tmp_path: Path) -> None:
    config = configuration("PPO", {"average_every": 2}, iterations=3, checkpoint_every=1)

    def stop(report: Any) -> None:
        if report.iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut", stop, problem=lever_problem(config))
    again = resume(tmp_path / "cut", problem=lever_problem(config))
    learnt = RunFolder(again.folder).checkpoints(3).load_newest()[0]["sites"]
    alone = [FederatedSite(config, lever_problem(config), "lever", k, k, 3) for k in range(2)]
    for iteration in range(3):
        for site in alone:
            site.iterate(iteration)
        if iteration in (1, 2):  # every second time, and at the end
            weights = [site.weights() for site in alone]
            mean = {name: (weights[0][name].double() + weights[1][name].double()).div(2).float() for name in weights[0]}
            for site in alone:
                site.set_weights(mean, iteration + 1)
    assert same([site.state(3, "") for site in alone], learnt)
    shipped = np.load(again.artifact / "weights_lever.npz")
    first = {name: t.numpy() for name, t in alone[0].weights().items()}
    np.testing.assert_array_equal(shipped["layer_0_weight"][0].T, first["mlp_extractor.policy_net.0.weight"])


def test_only_the_own_asset_is_moved_and_learnt_from() -> None:
    config = configuration("SAC")
    site = FederatedSite(config, lever_problem(config), "lever", 1, 1, 4)
    _, told, n_steps = site.iterate(0)
    assert n_steps == 8 * 2  # two replicas of one asset
    env = site._learner.env
    env.step(np.full((2, 1), 1.0, np.float32))
    last = env._episodes.readings.measured["lever"][..., 1]
    np.testing.assert_array_equal(last, [[1.0, 3.0], [1.0, 3.0]])  # its neighbour stays at neutral
    assert np.isfinite(told["reward/mean"])


def test_assets_have_seeds_of_their_own_and_averaged_ones_begin_alike() -> None:
    for federated, alike in (({}, False), ({"average_every": 1}, True)):
        config = configuration("PPO", federated)
        sites = [FederatedSite(config, lever_problem(config), "lever", k, k, 4) for k in range(2)]
        weights = [site.weights() for site in sites]
        assert same(weights[0], weights[1]) == alike
        observations = [site._learner.model._last_obs for site in sites]
        assert not np.array_equal(observations[0], observations[1])


def test_an_error_names_the_asset_at_whose_site_it_happened() -> None:
    config = configuration("PPO", site=LeverConfig(n_assets=1), task_options={"nan_at_step": 3})
    with trainer_of(config) as trainer, pytest.raises(NumericalError, match="reward of replica 0 is nan") as caught:
        trainer.iterate()
    assert any("at the site of lever/L1" in note for note in caught.value.__notes__)


def test_averaging_is_refused_where_a_mean_means_nothing() -> None:
    with pytest.raises(ValidationError, match=r"average_every: .*SAC also keeps targets.*use PPO, A2C"):
        configuration("SAC", {"average_every": 2})
