"""The option ``--set``, alike in every command that reads a YAML file."""

from __future__ import annotations

import argparse


def add_overrides(parser: argparse.ArgumentParser, example: str) -> None:
    """Add ``--set KEY=VALUE``; the texts are in ``arguments.overrides``, for :func:`..configuration.load`."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"override a value of the file, such as {example}; may be repeated",
    )
