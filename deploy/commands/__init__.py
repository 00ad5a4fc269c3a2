"""Subcommands of ``twinloop`` for the operator's side."""
