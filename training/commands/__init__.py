"""Subcommands of ``twinloop`` that train."""
