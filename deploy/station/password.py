"""Passwords from the terminal, or from a file descriptor; never from the command line, where all can read them."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from typing import TextIO

from ...envs.errors import ConfigurationError


class Passwords:
    """Asks for one password after the other: a line each of ``descriptor``, or without one the terminal."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._file: TextIO | None = None

    def ask(self, whose: str, *, twice: bool = False) -> str:
        """One password; ``twice``: a new one, which the terminal asks for two times. Raises ConfigurationError."""
        if self._descriptor is not None:
            return self._line(whose)
        if not sys.stdin.isatty():
            raise ConfigurationError(f"the password of {whose} is asked for at a terminal; else give --password-fd N")
        found = getpass.getpass(f"password of {whose}: ")
        if twice and getpass.getpass("once more: ") != found:
            raise ConfigurationError("the two passwords differ; nothing was changed")
        return found

    def _line(self, whose: str) -> str:
        try:
            if self._file is None:
                self._file = os.fdopen(self._descriptor or 0, "r", encoding="utf-8", closefd=False)
            line = self._file.readline()
        except OSError as error:
            raise ConfigurationError(f"--password-fd {self._descriptor}: cannot be read ({error.strerror})") from error
        if not line:
            raise ConfigurationError(f"--password-fd {self._descriptor}: ends before the password of {whose}")
        return line.rstrip("\n")


def add_password_option(parser: argparse.ArgumentParser) -> None:
    """``--password-fd``."""
    parser.add_argument(
        "--password-fd", type=int, metavar="N", help="read passwords from this file descriptor, one a line, in the "
        "order in which they would be asked for; default: ask at the terminal"
    )  # fmt: skip
