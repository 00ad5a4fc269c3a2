"""``python -m twinloop`` and the ``twinloop`` command."""

from __future__ import annotations

import sys


def main() -> int:
    """Hand over to the command line; imported here so that importing twinloop stays cheap."""
    from twinloop.deploy.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
