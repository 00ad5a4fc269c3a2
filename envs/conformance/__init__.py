"""Checks that an implementation keeps its contract; each is one call in a user's own test.

    from twinloop.envs.conformance import check_encoder, check_plant, check_twin

    def test_twin_keeps_the_contract():
        check_twin(lambda n: MyTwin(n))

A breach raises :class:`~twinloop.envs.errors.ContractError` that names the check, the signal, the replica and both
values. Policies are checked by :func:`twinloop.agents.conformance.check_policy`.
"""

from __future__ import annotations

from .declaration import check_declaration
from .encoder import check_encoder
from .plant import check_plant
from .twin import TWIN_CHECKS, check_twin

__all__ = ["TWIN_CHECKS", "check_declaration", "check_encoder", "check_plant", "check_twin"]
