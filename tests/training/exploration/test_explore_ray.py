"""An exploration spread over a Ray session: the figures are those of this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
import ray

from twinloop.training.exploration.configuration import ExploreConfiguration
from twinloop.training.exploration.evaluation import Evaluator
from twinloop.training.exploration.workforce import Workforce


@pytest.fixture
def session() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("session")
def test_ray_workers_find_the_figures_of_this_process() -> None:
    values, told = np.array([[1.0], [4.0], [9.0]]), []
    found = []
    for changes in ({}, {"workers": 2, "ray_address": "auto", "replicas": 2}):
        config = ExploreConfiguration.model_validate({
            "site": {"kind": "production_line"},
            "ranges": {"buffer1_capacity": {"randint": [1, 9]}},
            "objectives": {"throughput": {"kind": "signal", "signal": "machine/M3/parts"}},
            "rounds": [{"periods": 4}],
            **changes,
        })  # fmt: skip
        with Workforce(config, Evaluator(config)) as workforce:
            found.append(workforce.run(values, (3, 4), 20, 0, lambda done, of: told.append((done, of))))
            assert workforce.cpu_s > 0.0
    np.testing.assert_array_equal(found[0], found[1])
    assert told[-1] == (6, 6)
    assert len(told) > 2  # several shares
