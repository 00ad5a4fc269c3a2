"""Maintenance rules for inspected components: what a learned policy has to beat."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import ContractError
from ...envs.inspected_system.nameplate import COMPONENT, CRACK, INSPECT, NOTHING, REPAIR
from ...envs.nameplate import Nameplate
from ...envs.twin import Observation
from ..policy import Commands, Memory
from .reference import NeutralPolicy

FloatArray = NDArray[np.float64]


class NeverMaintain(NeutralPolicy):
    """Nothing is inspected or repaired."""

    def __init__(self, nameplate: Nameplate) -> None:
        super().__init__(nameplate, name="never")


class _Rule(ABC):
    """A rule that remembers nothing; subclasses choose."""

    _name = ""

    def __init__(self, nameplate: Nameplate) -> None:
        self._nameplate = nameplate
        self._at = {s.name: k for k, s in enumerate(nameplate.group(COMPONENT).measured)}

    @property
    def name(self) -> str:
        return self._name

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    def start(self, n_rows: int) -> Memory:
        return {}

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        measured = np.asarray(observation.measured[COMPONENT], dtype=np.float64)
        return {COMPONENT: self._chosen(measured)[..., None]}, memory

    def _told(self, measured: FloatArray, name: str) -> FloatArray:
        column: FloatArray = measured[..., self._at[name]]
        return column

    @abstractmethod
    def _chosen(self, measured: FloatArray) -> FloatArray:
        """Action ``[B, N]`` for what is measured, ``[B, N, O]``."""


class PeriodicInspection(_Rule):
    """Every ``every_years`` years the ``n_worst`` components that are most likely to have failed are inspected; what
    was found cracked is repaired in the year after. The published heuristic of IMP-MARL (Leroy et al. 2023, arXiv
    2306.11551).

    Raises :class:`ContractError` for numbers below 1.
    """

    _name = "periodic"

    def __init__(self, nameplate: Nameplate, every_years: int, n_worst: int) -> None:
        super().__init__(nameplate)
        if min(every_years, n_worst) < 1:
            raise ContractError(
                f"periodic inspection every {every_years} years of {n_worst}: give whole numbers from 1"
            )
        self._every_years, self._n_worst = every_years, n_worst

    def _chosen(self, measured: FloatArray) -> FloatArray:
        year = self._told(measured, "year").round()
        failure = self._told(measured, "failure_pu")
        worst = np.argsort(-failure, axis=1, kind="stable")[:, : self._n_worst]
        is_worst = np.zeros(failure.shape, dtype=np.bool_)
        np.put_along_axis(is_worst, worst, True, axis=1)
        is_due = (year > 0) & (year % self._every_years == 0)
        action = np.where(is_due & is_worst, INSPECT, NOTHING)
        return np.where(np.abs(self._told(measured, "finding") - CRACK) < 0.5, REPAIR, action)


class BeliefThreshold(_Rule):
    """Repair what is likelier to fail by next year than ``repair_above_pu``, inspect what is likelier than
    ``inspect_above_pu``.

    Raises :class:`ContractError` where the first is below the second.
    """

    _name = "belief_threshold"

    def __init__(self, nameplate: Nameplate, inspect_above_pu: float, repair_above_pu: float) -> None:
        super().__init__(nameplate)
        if repair_above_pu < inspect_above_pu:
            raise ContractError(
                f"repair_above_pu {repair_above_pu} is below inspect_above_pu {inspect_above_pu}: nothing would be "
                "inspected; swap them"
            )
        self._inspect_above_pu, self._repair_above_pu = inspect_above_pu, repair_above_pu

    def _chosen(self, measured: FloatArray) -> FloatArray:
        chance = self._told(measured, "failure_next_pu")
        inspected = np.where(chance > self._inspect_above_pu, INSPECT, NOTHING)
        return np.where(chance > self._repair_above_pu, REPAIR, inspected)


class RunToFailure(_Rule):
    """Repair what has more likely failed than not. A failure here shows in inspections alone, so that by itself this
    rule never learns of one, and does what :class:`NeverMaintain` does."""

    _name = "run_to_failure"

    def _chosen(self, measured: FloatArray) -> FloatArray:
        return np.where(self._told(measured, "failure_pu") > 0.5, REPAIR, NOTHING)
