"""The wind farm: turbines that steer their wakes. ``SITE`` is what the registry loads."""

from .site import SITE

__all__ = ["SITE"]
