"""Arms that share a workspace: batched kinematics, distances, and what they reach for."""

from .site import SITE

__all__ = ["SITE"]
