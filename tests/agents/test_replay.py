from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from twinloop.agents.replay import ReplayBuffer
from twinloop.envs.errors import ContractError


def rows(first: int, n: int) -> np.ndarray:
    return np.arange(first, first + n, dtype=np.float32)[:, None].repeat(2, 1)


@given(
    capacity=st.integers(1, 9),
    before=st.lists(st.integers(0, 12), max_size=4),
    after=st.lists(st.integers(0, 12), max_size=4),
)
def test_a_boundary_is_what_it_was_and_a_restored_ring_goes_on_alike(
    capacity: int, before: list[int], after: list[int]
) -> None:
    ring, other = ReplayBuffer(capacity, 2), ReplayBuffer(capacity, 2)
    at = 0
    for n in before:
        ring.add(rows(at, n))
        at += n
    held = ring.hold()
    at_once = held()
    assert sorted(at_once["rows"][:, 0].tolist()) == list(range(max(0, at - capacity), at))
    other.add(rows(900, 3))
    other.restore(at_once)
    for n in after:
        ring.add(rows(at, n))
        other.add(rows(at, n))
        at += n
    later = held()
    assert torch.equal(later["rows"], at_once["rows"])
    assert later["cursor"] == at_once["cursor"]
    assert torch.equal(ring.hold()()["rows"], other.hold()()["rows"])
    ring.restore(at_once)
    assert torch.equal(held()["rows"], at_once["rows"])


def test_sampling_gives_the_rows_asked_for() -> None:
    ring = ReplayBuffer(4, 2)
    ring.add(rows(0, 6))
    assert len(ring) == 4
    assert ring.sample(np.array([0, 3, 0]))[:, 1].tolist() == [2.0, 5.0, 2.0]


def test_rows_of_another_width_are_refused() -> None:
    ring = ReplayBuffer(4, 3)
    with pytest.raises(ContractError, match=r"shape \(2, 2\), expected \[n, 3\]"):
        ring.add(rows(0, 2))
    with pytest.raises(ContractError, match="resume with the configuration"):
        ring.restore({"rows": torch.zeros(2, 2), "cursor": 0})
