from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from twinloop.training.rollout_settings import RolloutConfiguration
from twinloop.training.worker_choice import Probe, gain_s

COSTS = st.floats(1e-6, 1e-1)
COUNTS = st.integers(1, 10**6)


def test_the_reference_task_stays_in_process_and_a_millisecond_a_step_does_not() -> None:
    """As measured: a replica-step of 12 us and 0.6 KB; 1 ms of work a step on two cores."""
    assert gain_s(Probe(12e-6, 600.0), 1024, 2, False, 2) < 0
    assert gain_s(Probe(1e-3, 600.0), 1024, 2, False, 2) > 0.3


@given(COSTS, COUNTS, st.integers(1, 8), st.booleans(), st.integers(1, 16))
def test_workers_gain_more_the_dearer_a_step_is(
    cost_s: float, replica_steps: int, n_workers: int, is_overlapped: bool, n_cores: int
) -> None:
    cheap, dear = (
        gain_s(Probe(c, 500.0), replica_steps, n_workers, is_overlapped, n_cores) for c in (cost_s, 2 * cost_s)
    )
    assert dear >= cheap


@given(COSTS, COUNTS, st.integers(1, 8), st.booleans())
def test_workers_on_one_core_never_gain(cost_s: float, replica_steps: int, n_workers: int, is_overlapped: bool) -> None:
    assert gain_s(Probe(cost_s, 500.0), replica_steps, n_workers, is_overlapped, 1) < 0


@given(COSTS, COUNTS, st.integers(1, 8))
def test_a_gain_is_never_more_than_what_gathering_takes(cost_s: float, replica_steps: int, n_workers: int) -> None:
    assert gain_s(Probe(cost_s, 500.0), replica_steps, n_workers, True, 64) < cost_s * replica_steps


def test_auto_is_one_worker_a_core_and_at_most_one_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))

    def auto(**settings: int) -> int:
        return RolloutConfiguration.model_validate({"workers": "auto", **settings}).workers

    assert auto(replicas=16, shard_replicas=2) == 4
    assert auto(replicas=6, shard_replicas=2) == 3
    assert auto() == 1  # all replicas are in one shard


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"replicas": 10, "shard_replicas": 4}, "replicas 10 is not a multiple of shard_replicas 4"),
        ({"replicas": 4, "workers": 2}, "workers 2 exceeds the 1 shards"),
        ({"hang_timeout_s": 0}, "greater than 0"),
        ({"ray_address": ""}, "at least 1 character"),
        ({"workers": "some"}, "valid integer"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        RolloutConfiguration.model_validate(settings)


@pytest.mark.parametrize("learner", ["analytic", "sb3"])
def test_overlap_is_refused_for_learners_that_gather_for_themselves(learner: str) -> None:
    told = RolloutConfiguration(overlap=True).disagreement(learner)
    assert told is not None
    assert "rollout.overlap" in told
    assert RolloutConfiguration(overlap=True).disagreement("ppo") is None
    assert RolloutConfiguration().disagreement(learner) is None
