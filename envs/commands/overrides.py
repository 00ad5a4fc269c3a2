"""The options ``--set`` and ``--option``, alike in every command that has them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import yaml

from ..errors import ConfigurationError


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


def options_of(texts: Sequence[str], example: str) -> dict[str, Any]:
    """Settings of ``--option KEY=VALUE``, values read as YAML; raises :class:`ConfigurationError`."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigurationError(f"--option {text!r}: give KEY=VALUE, such as {example}")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigurationError(f"--option {text!r}: {value!r} is no value ({error})") from error
    return found
