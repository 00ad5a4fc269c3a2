"""Who works in a slot, against a plain loop over machines."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from twinloop.envs.production_line.flow import MOST_MACHINES, branching_work, serial_work

bits = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=MOST_MACHINES)


def one_by_one(able: list[bool], roomy: list[bool]) -> list[bool]:
    working = [False] * len(able)
    follows = False
    for i in range(len(able) - 1, -1, -1):
        working[i] = able[i] and (roomy[i] or follows)
        follows = working[i]
    return working


@given(bits)
def test_the_carry_is_the_loop(line: list[tuple[bool, bool]]) -> None:
    able, roomy = [a for a, _ in line], [r for _, r in line]
    roomy[-1] = True
    found = serial_work(torch.tensor(able)[:, None], torch.tensor(roomy)[:, None])[:, 0]
    assert found.tolist() == one_by_one(able, roomy)


@given(bits)
def test_a_row_is_a_line_that_does_not_branch(line: list[tuple[bool, bool]]) -> None:
    able, roomy = torch.tensor([a for a, _ in line])[:, None], torch.tensor([r for _, r in line])[:, None]
    roomy[-1] = True
    n = len(line)
    producer, consumer = torch.arange(n - 1)[:, None], torch.arange(1, n)[:, None]
    found = branching_work(able, roomy[:-1], consumer, producer, n)
    assert torch.equal(found, serial_work(able, roomy))


def test_an_assembly_waits_for_the_slower_branch() -> None:
    """Machines 1 and 2 feed 3; the buffer behind 1 is full, that behind 2 is not."""
    producer, consumer = torch.tensor([[0], [1]]), torch.tensor([[2], [2]])
    room = torch.tensor([[False], [True]])
    fed = torch.tensor([[True], [True], [False]])
    assert branching_work(fed, room, consumer, producer, 2)[:, 0].tolist() == [False, True, False]
    fed[2] = True
    assert branching_work(fed, room, consumer, producer, 2)[:, 0].tolist() == [True, True, True]
