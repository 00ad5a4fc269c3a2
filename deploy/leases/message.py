"""What travels between an asset and a coordinator, and the times that both must know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ...envs.errors import ConfigurationError


class Report(NamedTuple):
    """Asset to coordinator. ``number``: newest settled lease of ``term``, 0 for none; ``heard``: highest term heard;
    ``demand``: what the asset would like to use, in the row's unit; ``sent_s``: its own clock in boot ``boot``."""

    asset: int
    boot: int
    sent_s: float
    term: int
    number: int
    heard: int
    demand: float


class Assignment(NamedTuple):
    """Coordinator to asset: use no more than ``limit``. ``boot`` and ``sent_s`` repeat the report that it answers."""

    asset: int
    term: int
    number: int
    limit: float
    duration_s: float
    boot: int
    sent_s: float


@dataclass(frozen=True)
class LeaseTerms:
    """Times of a row. ``drift``: every clock runs between ``1 - drift`` and ``1 + drift`` of true time.

    Raises :class:`ConfigurationError` where a pledge could not outlast a grant.
    """

    grant_s: float
    pledge_s: float
    drift: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse times with which nothing could ever be granted."""
        if not 0.0 <= self.drift < 1.0:
            raise ConfigurationError(f"lease terms: drift = {self.drift}; allowed is 0 to below 1")
        shortest_s = self.grant_s * self.ratio**2
        if not 0.0 < shortest_s < self.pledge_s:
            raise ConfigurationError(
                f"lease terms: pledge_s = {self.pledge_s} with grant_s = {self.grant_s} and drift = {self.drift}; a "
                f"pledge must outlast a grant on any two clocks: make pledge_s more than {shortest_s:g}"
            )

    @property
    def ratio(self) -> float:
        """The most that one clock can advance while another advances by one."""
        return (1.0 + self.drift) / (1.0 - self.drift)
