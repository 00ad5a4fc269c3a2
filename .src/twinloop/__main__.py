"""``python -m twinloop`` and the ``twinloop`` command: a table of subcommands, each imported only when chosen.

A command's module offers ``configure(parser) -> None``, which adds its arguments, description and epilog, and
``run(arguments) -> int``, which returns the exit status.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from twinloop import __version__

EXIT_OK = 0
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


@dataclass(frozen=True)
class Command:
    """A subcommand: its module, its line in ``twinloop --help``, and the extra that installs all it needs."""

    module: str
    summary: str
    extra: str


COMMANDS = {
    "sites": Command(
        "twinloop.envs.commands.sites", "list the sites, or one site's signals, tasks and layouts", "wind"
    ),
    "check": Command("twinloop.deploy.commands.check", "prove a site's safety limits coherent, and list them", "wind"),
    "train": Command("twinloop.training.commands.train", "train policies on a twin, or resume a run", "train"),
    "evaluate": Command("twinloop.training.commands.evaluate", "measure a policy on the twin or on a plant", "train"),
    "compare": Command("twinloop.training.commands.compare", "compare runs over their seeds, with intervals", "train"),
    "tune": Command("twinloop.training.commands.tune", "search over a configuration's keys with Ray Tune", "ray"),
    "explore": Command(
        "twinloop.training.commands.explore", "search virtual prototypes of a site for the Pareto front", "train"
    ),
    "bench": Command("twinloop.training.commands.bench", "run a benchmark and print its figure", "all"),
    "commission": Command("twinloop.deploy.commands.commission", "start an emulated plant behind its server", "opcua"),
    "certificates": Command(
        "twinloop.deploy.commands.certificates", "make and show what secures OPC UA: certificates and users", "opcua"
    ),
    "run": Command("twinloop.deploy.commands.run", "run a policy artifact on a plant, through the shield", "edge"),
    "replay": Command("twinloop.deploy.commands.replay", "make a journal's decisions again, bit for bit", "edge"),
    "audit": Command(
        "twinloop.deploy.commands.audit", "check and sign a journal, keep its history, delete what is old", "audit"
    ),
    "package": Command(
        "twinloop.deploy.commands.package", "bring a policy to the field: sign, check, install, roll out", "edge"
    ),
    "people": Command("twinloop.deploy.commands.people", "say who may do what at a station", "edge"),
    "propose": Command(
        "twinloop.deploy.commands.propose", "say what a change would bring, from the live twin's present state", "twin"
    ),
    "approve": Command("twinloop.deploy.commands.approve", "approve what another person proposed", "edge"),
    "proposals": Command(
        "twinloop.deploy.commands.proposals", "list proposals, carry them out, pause them, go back", "edge"
    ),
    "stop": Command("twinloop.deploy.commands.stop", "emergency stop of a station, without a login", "edge"),
    "console": Command("twinloop.deploy.commands.console", "serve a station's pages to browsers", "console"),
    "overview": Command("twinloop.deploy.commands.overview", "show a station in the terminal", "edge"),
    "watchdog": Command(
        "twinloop.deploy.commands.watchdog", "take a plant to its safe state when its control loop dies", "opcua"
    ),
    "twin": Command("twinloop.deploy.commands.twin", "keep a station's twin where its plant is", "twin"),
    "diagnose": Command(
        "twinloop.deploy.commands.diagnose", "say what holds a site back, what it costs and what change pays", "line"
    ),
    "prognose": Command(
        "twinloop.envs.commands.prognose", "say how long machines will last, from their condition signals", "prognosis"
    ),
    "demo": Command("twinloop.training.commands.demo", "close the loop on a wind farm, in minutes", "all"),
}

PACKAGE_EXTRAS = {
    "Box2D": ("tasks",),
    "PIL": ("cell",),
    "asyncua": ("opcua",),
    "cma": ("falsify", "explore"),
    "cryptography": ("audit", "console", "edge", "opcua"),
    "daqp": ("edge",),
    "duckdb": ("audit",),
    "fastapi": ("console",),
    "floris": ("wind",),
    "gymnasium": ("twin", "train", "tasks"),
    "jinja2": ("console",),
    "js_lib_htmx": ("console",),
    "matplotlib": ("train",),
    "mlflow": ("mlflow",),
    "mpe2": ("tasks",),
    "mujoco": ("cell",),
    "onnx": ("train",),
    "onnxruntime": ("edge", "train"),
    "optuna": ("explore",),
    "paho": ("mqtt",),
    "pettingzoo": ("twin", "train"),
    "prometheus_client": ("audit",),
    "psutil": ("train",),
    "pyarrow": ("audit", "console", "ray"),
    "pymodbus": ("modbus",),
    "python_multipart": ("console",),
    "ray": ("ray",),
    "relife": ("prognosis",),
    "sb3_contrib": ("sb3",),
    "scipy": ("wind", "line", "train", "prognosis"),
    "simpy": ("line",),
    "sklearn": ("prognosis",),
    "stable_baselines3": ("sb3",),
    "tensorboard": ("train",),
    "torch": ("twin", "line", "cell", "train"),
    "uvicorn": ("console",),
    "wandb": ("wandb",),
    "youplot": ("console",),
}
"""Extras of pyproject.toml that install an import package."""

OVERVIEW = """\
usage: twinloop COMMAND [options]

Closes the loop between a digital twin and the machines it mirrors: agents learn in the twin, are proved on an
independent plant, and act through a safety shield.

commands:
{commands}

options:
  -h, --help     show this page
  --version      show the version

`twinloop COMMAND --help` explains a command. Start with `twinloop demo`.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; ``argv`` is what follows the program's name. Returns the exit status.

    0: done; 2: an error that the message explains; 130: stopped by Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _start(words)
        sys.stdout.flush()  # a broken pipe shows here, where it is handled
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader left (`twinloop sites | head`); point stdout elsewhere, or the interpreter's own flush fails too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return status


def _start(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(overview(), end="")
        return EXIT_OK
    if words[0] == "--version":
        print(f"twinloop {__version__}")
        return EXIT_OK
    return _dispatch(words[0], words[1:])


def overview() -> str:
    """Text of ``twinloop --help``."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:<{width}}     {command.summary}" for name, command in COMMANDS.items())
    return OVERVIEW.format(commands="\n".join(lines))


def _dispatch(name: str, words: list[str]) -> int:
    from twinloop.envs.errors import MissingExtraError, TwinloopError, nearest

    if name not in COMMANDS:
        print(
            f"error: {name!r} is not a command of twinloop; commands: {', '.join(COMMANDS)}{nearest(name, COMMANDS)}",
            file=sys.stderr,
        )
        return EXIT_ERROR
    command = COMMANDS[name]
    try:
        try:
            return _run(name, command, words)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            extra = extra_of(package, command.extra)
            if extra is None:
                raise
            raise MissingExtraError(package, extra, f"twinloop {name}") from error
    except TwinloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR


def _run(name: str, command: Command, words: list[str]) -> int:
    module = importlib.import_module(command.module)
    parser = argparse.ArgumentParser(
        prog=f"twinloop {name}",
        description=command.summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(parser)
    return int(module.run(parser.parse_args(words)))


def extra_of(package: str, preferred: str) -> str | None:
    """Extra that installs ``package``: ``preferred`` if it does, else the smallest; None for a package of no extra."""
    extras = PACKAGE_EXTRAS.get(package)
    if extras is None:
        return None
    return preferred if preferred in (*extras, "all") else extras[0]


if __name__ == "__main__":
    sys.exit(main())
