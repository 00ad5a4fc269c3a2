"""Classical controllers, as policies: what a learned policy has to beat."""

from .reference import NeutralPolicy, RandomPolicy, neutral_commands
from .wind_farm import Greedy, LookUpTable

__all__ = ["Greedy", "LookUpTable", "NeutralPolicy", "RandomPolicy", "neutral_commands"]
