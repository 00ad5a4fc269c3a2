"""Every reachable state of the lease protocol, explored with the code that runs: no sum ever passes the bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest

from twinloop.training.benchmarks.lease_exploration import explore
from twinloop.training.benchmarks.lease_model import CASES
from twinloop.training.benchmarks.lease_mutants import MUTANTS
from twinloop.training.benchmarks.lease_world import SHARE, Corner, LeaseWorld

State = tuple[Corner, ...]
SMALL = LeaseWorld(n_assets=2, limits=(0.0, 2.0), entries=2)
QUICK = {case.name: case for case in CASES if not case.deep}


def plainly_explored(world: LeaseWorld) -> dict[State, set[State]]:
    """All states and what follows each, without tables, numbers or packing."""
    first = tuple(sorted([world.first()] * world.n_assets))
    found: dict[State, set[State]] = {}
    queue = deque([first])
    while queue:
        state = queue.popleft()
        if state in found:
            continue
        found[state] = set(plain_successors(world, state))
        queue.extend(found[state])
    return found


def plain_successors(world: LeaseWorld, state: State) -> Iterator[State]:
    yield tuple(sorted(world.later(corner, 1.0, (1.0,) * world.n_coordinators) for corner in state))
    if world.crash and not state[0].crashed:
        yield tuple(sorted(world.lose_coordinator(corner) for corner in state))
    for place, corner in enumerate(state):
        rest = state[:place] + state[place + 1 :]
        for new in world.alone(corner):
            yield tuple(sorted((new, *rest)))
        for offer in world.offers(corner):
            given = world.give(offer, tuple(other.entries[offer.which] for other in rest))
            if given is not None:
                yield tuple(sorted((world.given(corner, offer.which, *given), *rest)))


@pytest.mark.parametrize(
    "world", [SMALL, LeaseWorld(n_assets=2, n_coordinators=2, limits=(0.0, 2.0), entries=2, crash=True)]
)
def test_the_packed_exploration_reaches_exactly_the_states_of_a_plain_one(world: LeaseWorld) -> None:
    found, plain = explore(world), plainly_explored(world)
    assert found.states == len(plain)
    highest = max(sum(world.used(corner) for corner in state) for state in plain)
    assert found.worst == highest / (SHARE * world.n_assets)


@pytest.mark.parametrize("name", QUICK)
def test_no_reachable_state_passes_the_bound(name: str) -> None:
    found = explore(QUICK[name].world)
    print(f"{name}: {found.states} states, {found.transitions} transitions, depth {found.depth}")
    assert found.ended
    assert found.safe
    assert found.worst == 1.0


def test_two_coordinators_at_three_assets_keep_the_bound_in_the_nearest_states() -> None:
    """The whole, some hundred million states, is explored by ``twinloop bench lease_model --deep``."""
    world = next(case.world for case in CASES if case.name == "split")
    found = explore(world, at_most=300_000)
    assert found.safe
    assert not found.ended


def test_all_of_the_bound_can_be_leased_to_one_asset() -> None:
    assert any(max(SMALL.used(corner) for corner in state) == 2.0 for state in plainly_explored(SMALL))


def test_from_every_state_a_grant_can_still_be_reached() -> None:
    states = plainly_explored(SMALL)
    before: dict[State, list[State]] = {state: [] for state in states}
    for state, after in states.items():
        for new in after:
            before[new].append(state)
    able = {state for state in states if any(SMALL.used(corner) > SHARE for corner in state)}
    front = list(able)
    while front:
        fresh = [each for each in before[front.pop()] if each not in able]
        able.update(fresh)
        front.extend(fresh)
    assert len(able) == len(states)


@pytest.mark.parametrize(("rule", "world"), MUTANTS, ids=[rule for rule, _ in MUTANTS])
def test_with_a_rule_removed_a_way_past_the_bound_is_found(rule: str, world: LeaseWorld) -> None:
    found = explore(world, 1_000_000)
    assert not found.safe
    sums = [sum(world.used(corner) for corner in state) for state in found.trace]
    assert max(sums[:-1]) <= SHARE * world.n_assets < sums[-1]
