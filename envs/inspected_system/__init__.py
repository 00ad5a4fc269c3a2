"""Components that crack, of which so many must work: inspect, repair, or take the risk."""

from .site import SITE

__all__ = ["SITE"]
