"""Machines and buffers in slots of time: what flows, what is blocked and starved, and what it costs."""

from .site import SITE

__all__ = ["SITE"]
