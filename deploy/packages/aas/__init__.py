"""A site and its model as Asset Administration Shells, for systems that read those and nothing of ours."""

from .environment import Export, export

__all__ = ["Export", "export"]
