"""Which weights gather which rollout, and that a state remembers those of the rollout under way."""

from __future__ import annotations

from typing import Any

import numpy as np

from twinloop.agents.actor import ActorWeights
from twinloop.agents.layers import GruWeights
from twinloop.agents.squashed_actor import SquashedActor
from twinloop.training.benchmarks.drift_site import GROUP, DriftConfig, drift_configuration, drift_problem
from twinloop.training.collector import InProcessCollector, shard_plans
from twinloop.training.overlapped import OverlappedCollector, leaves, with_leaves
from twinloop.training.rollout import Rollout
from twinloop.training.rollout_settings import RolloutConfiguration

CONFIG = drift_configuration(
    site=DriftConfig(n_assets=2), rollout=RolloutConfiguration(replicas=4, shard_replicas=2, steps=6)
)


def plain() -> InProcessCollector:
    return InProcessCollector(drift_problem(CONFIG), shard_plans(CONFIG), 6)


def weights(number: int) -> dict[str, ActorWeights]:
    """A policy that wants ``number`` tenths of every command, give or take nothing."""
    return {
        GROUP: ActorWeights(
            feature_mean=np.zeros(10, np.float32),
            feature_std=np.ones(10, np.float32),
            feature_clip=10.0,
            weights=(np.zeros((1, 10, 2), np.float32),),
            biases=(np.full((1, 2), number / 10, np.float32),),
            log_std=np.full((1, 2), -20.0, np.float32),
            n_continuous=2,
        )
    }


def gathered_by(rollouts: list[Rollout]) -> int:
    tenths = {round(10 * float(x)) for r in rollouts for x in np.unique(r.groups[GROUP].actions.round(4))}
    (number,) = tenths
    return number


def same(a: list[Rollout], b: list[Rollout]) -> bool:
    def equal(x: Any, y: Any) -> bool:
        return (x is None and y is None) or np.array_equal(x, y)

    return all(
        equal(value, getattr(q.groups[GROUP], key))
        for p, q in zip(a, b, strict=True)
        for key, value in vars(p.groups[GROUP]).items()
    )


def test_an_iteration_learns_from_what_the_weights_before_it_gathered() -> None:
    collector = OverlappedCollector(plain())
    assert [gathered_by(collector.collect(weights(k))) for k in range(1, 6)] == [1, 1, 2, 3, 4]


def test_the_rollouts_are_those_of_these_weights_one_after_the_other() -> None:
    collector, reference = OverlappedCollector(plain()), plain()
    for k, by in enumerate([1, 1, 2, 3], start=1):
        assert same(collector.collect(weights(k)), reference.collect(weights(by)))


def test_a_state_at_any_iteration_leads_to_the_same_rollouts() -> None:
    for at in range(4):
        collector, other = OverlappedCollector(plain()), OverlappedCollector(plain())
        for k in range(1, at + 1):
            collector.collect(weights(k))
        state = collector.snapshots()
        rest = [collector.collect(weights(k)) for k in range(at + 1, 6)]
        other.restore(state())
        assert all(same(x, other.collect(weights(k))) for k, x in enumerate(rest, start=at + 1)), at
        # A state taken before the resumed collector has gathered says the same.
        third = OverlappedCollector(plain())
        third.restore(state())
        fourth = OverlappedCollector(plain())
        fourth.restore(third.snapshots()())
        assert all(same(x, fourth.collect(weights(k))) for k, x in enumerate(rest, start=at + 1)), at


def test_what_the_learner_does_to_its_weights_meanwhile_does_not_matter() -> None:
    collector = OverlappedCollector(plain())
    mine = weights(1)
    collector.collect(mine)
    mine[GROUP].biases[0][:] = 0.9
    assert gathered_by(collector.collect(weights(2))) == 1


def test_an_actor_that_explored_at_random_does_so_again_after_a_resume() -> None:
    """An off-policy learner begins at random; the rollout under way may be the last of that kind."""

    def actor() -> SquashedActor:
        return SquashedActor(
            np.zeros(10, np.float32),
            np.ones(10, np.float32),
            10.0,
            (np.zeros((1, 10, 4), np.float32),),
            (np.zeros((1, 4), np.float32),),
        )

    whole, half, resumed = (OverlappedCollector(plain()) for _ in range(3))
    policies = [{GROUP: actor().at_random()}, {GROUP: actor()}, {GROUP: actor()}]
    expected = [whole.collect(policy) for policy in policies]
    half.collect(policies[0])
    resumed.restore(half.snapshots()())
    assert all(same(a, resumed.collect(p)) for a, p in zip(expected[1:], policies[1:], strict=True))
    assert not same(expected[1], expected[2])


def test_leaves_are_all_arrays_of_an_actor_and_can_be_put_into_another() -> None:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    def actor() -> dict[str, ActorWeights]:
        gru = GruWeights(draw(1, 3, 12), draw(1, 4, 12), draw(1, 12), draw(1, 12))
        return {
            "g": ActorWeights(
                draw(3),
                draw(3),
                5.0,
                (draw(1, 7, 8), draw(1, 8, 4)),
                (draw(1, 8), draw(1, 4)),
                draw(1, 1),
                1,
                (3,),
                gru,
            )
        }

    one, other = actor(), actor()
    rebuilt = with_leaves(other, leaves(one))
    assert len(leaves(one)) == 2 + 1 + 4 + 1 + 2 + 5  # the clip, the counts and the flag of the GRU among them
    assert all(np.array_equal(a, b) for a, b in zip(leaves(one), leaves(rebuilt), strict=True))
    inputs: list[Any] = [draw(2, 3, 3), draw(2, 3, 4), draw(2, 3, 1), np.full((2, 3, 3), 0.4, np.float32), None]
    assert all(np.array_equal(a, b) for a, b in zip(one["g"].act(*inputs), rebuilt["g"].act(*inputs), strict=True))
