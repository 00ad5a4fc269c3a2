"""``twinloop tune``: search over the keys of a training configuration, or carry on with a search."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...envs.commands.overrides import add_overrides

DESCRIPTION = """\
Search over the keys of a training configuration with Ray Tune. Each trial is a run folder that `twinloop compare`
reads; the best configuration is written as YAML. All trials' configurations are checked before anything starts, and
depend on the seed alone. Ctrl-C saves the search; --resume carries on with it.
"""
EPILOG = """\
a space is a YAML file of dotted keys:
  learner.lr: {loguniform: [1.0e-5, 1.0e-2]}
  learner.gae_lambda: {uniform: [0.8, 1.0], step: 0.05}
  learner.minibatches: {choice: [4, 8, 16]}
  rollout.steps: {randint: [16, 64], step: 16}     both ends are included

examples:
  twinloop tune configs/wind_farm/train_ablaincourt.yaml --space space.yaml --samples 32 --concurrent 4 \\
      --set evaluation.every=10
  twinloop tune train.yaml --space space.yaml --scheduler pbt --samples 8 --interval 20
  twinloop tune --resume runs/ablaincourt-search-20260102T030405Z

exit status: 0 done, 130 stopped by Ctrl-C, 2 wrong input, or no trial reported a figure.
"""
INTERRUPTED = 130  # what shells give a program that Ctrl-C ended
NOTHING_FOUND = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="YAML file of kind train")
    parser.add_argument("--space", type=Path, metavar="SPACE", help="YAML file of keys and their values")
    add_overrides(parser, "evaluation.every=10")
    parser.add_argument("--samples", type=int, metavar="N", help="trials (16)")
    parser.add_argument("--scheduler", choices=("asha", "pbt", "none"), help="who stops or changes trials (asha)")
    parser.add_argument("--metric", metavar="FIGURE", help="figure to go by (evaluation/reward)")
    parser.add_argument("--mode", choices=("max", "min"), help="whether larger or smaller is better (max)")
    parser.add_argument(
        "--interval", type=int, metavar="N", help="iterations before asha may stop a trial, or between pbt's changes"
    )
    parser.add_argument("--concurrent", type=int, metavar="N", help="trials at a time, a process and a thread each (1)")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the sampled values (0)")
    parser.add_argument("--address", metavar="HOST:PORT", help="Ray cluster; absent: a session on this machine")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the search (runs/NAME-search-STAMP)")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="carry on with this search")


def run(arguments: argparse.Namespace) -> int:
    """Search; 0 at the end, 130 after Ctrl-C. Raises TwinloopError for what the user can mend."""
    import logging

    from rich.console import Console
    from rich.table import Table

    from ...envs.configuration import load, load_mapping, validate
    from ...envs.errors import ConfigurationError
    from ..configuration import training_model
    from ..run_folder import RunFolder
    from ..tune_search import SearchConfiguration, begin, carry_on, make_search, read_search
    from ..tune_space import Space

    console = Console()

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    class Voice(logging.Handler):
        """Prints what the search says of its trials."""

        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    names = ("samples", "scheduler", "metric", "mode", "interval", "concurrent", "seed", "address")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if arguments.resume is not None:
        other = [
            flag
            for flag, value in (
                ("CONFIG", arguments.config),
                ("--space", arguments.space),
                ("--set", arguments.overrides),
                ("--out", arguments.out),
                *((f"--{name}", given.get(name)) for name in names if name not in ("concurrent", "address")),
            )
            if value not in (None, [])
        ]
        if other:
            raise ConfigurationError(
                f"--resume: {', '.join(other)} cannot change a search that has begun; only --concurrent, --address can"
            )
        search = read_search(arguments.resume, given)
    else:
        if arguments.config is None or arguments.space is None:
            raise ConfigurationError("tune: give a configuration file and --space with a space file, or --resume DIR")
        settings = validate(given, SearchConfiguration, "twinloop tune")
        model = training_model(arguments.config, arguments.overrides)
        base = load_mapping(arguments.config, arguments.overrides)
        name = load(arguments.config, model, arguments.overrides).name
        folder = arguments.out or RunFolder.named(Path("runs"), f"{name}-search").path
        search = make_search(base, model, Space.load(arguments.space), settings, folder)
    say(f"search folder: {search.folder}")
    voice, log = Voice(), logging.getLogger("twinloop.training.tune_scheduler")
    level = log.level
    log.addHandler(voice)
    log.setLevel(logging.INFO)
    try:
        result = carry_on(search) if arguments.resume is not None else begin(search)
    finally:
        log.removeHandler(voice)
        log.setLevel(level)
    keys = list(search.space.domains)
    table = Table("trial", *keys, search.settings.metric, "iteration", "end")
    for t in result.trials:
        figure = "-" if t.figure is None else f"{t.figure:.6g}"
        shown = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in (t.values[key] for key in keys)]
        table.add_row(f"{t.number:04d}", *shown, figure, str(t.iteration), t.status)
    console.print(table)
    if result.interrupted:
        say(f"stopped; resume with: twinloop tune --resume {search.folder}")
        return INTERRUPTED
    if result.best is None:
        say(f"no trial reported {search.settings.metric}; see {search.folder / 'tune'} for what went wrong")
        return NOTHING_FOUND
    say(f"best: trial {result.best.number:04d}; train it with: twinloop train {search.folder / 'best.yaml'}")
    return 0
