"""Tries to break a site's declaration behind its shield, on the twin, before anything runs.

A search that finds nothing proves nothing; it says how hard was looked, and what came nearest.
"""

from .falsify import Falsification, Finding, Scheduled, falsify
from .model import Model, TwinModel
from .schedule import Schedule, Space
from .trial import Adversary, Outcome, Trial

__all__ = [
    "Adversary",
    "Falsification",
    "Finding",
    "Model",
    "Outcome",
    "Schedule",
    "Scheduled",
    "Space",
    "Trial",
    "TwinModel",
    "falsify",
]
