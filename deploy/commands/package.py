"""``twinloop package``: a trained policy on its way to the equipment."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...envs.commands.overrides import add_overrides
from ...envs.errors import ConfigurationError, PackageError
from ..audit.signing import PRIVATE_NAME, PUBLIC_NAME, PublicKey, load_private, load_public
from ..packages.archive import MAX_MB
from ..packages.content import EVALUATION, LIMITS, SUFFIX, TWIN
from ..packages.here import Here, check_site, of_plant, of_station
from ..packages.installation import Installation
from ..packages.package import build, open_package, write_file
from ..packages.rollout import Rollout, State, TargetState
from ..packages.rollout_plan import Plan, approve_plan, fault_of_approver, load_plan
from ..station.folder import StationFolder
from ..station.password import Passwords, add_password_option
from ..station.people import People

DESCRIPTION = f"""\
Bring a trained policy to the equipment as one signed file (*{SUFFIX}): the artifact, the limits of its site as data,
nameplate, twin and evaluation, with a manifest and an Ed25519 signature. The same input makes the same bytes.

build    make one; the key pair is of `twinloop audit keys DIR`
verify   is it signed, whole, and of the site here? Nothing is written
show     what a package holds, or what is installed in a folder
aas      site and model as Asset Administration Shells (JSON, metamodel 3.0), from a package or an artifact
rollout  bring it to many sites in groups, by a plan (YAML) that another person approves: approve, start, status, pause,
         resume, abort; too many failures take it back everywhere
install  check it and make it the current release of a folder, whole or not at all; --rollback goes back to the last

A package is refused that is not signed by a key of --public, that differs from what was signed by one byte, that would
write outside its folder, that is too large, of another nameplate, with other limits than hold here, or older than what
is installed. Run what is installed with `twinloop run DIR/current/artifact`.
"""
EPILOG = f"""\
examples:
  twinloop audit keys keys
  twinloop package build ARTIFACT --plant farm.yaml --name yaw --release 7 --key keys/{PRIVATE_NAME} --out yaw{SUFFIX}
  twinloop package verify yaw{SUFFIX} --public keys/{PUBLIC_NAME} --plant farm.yaml
  twinloop package install yaw{SUFFIX} --to installed --public keys/{PUBLIC_NAME} --plant farm.yaml
  twinloop package install yaw{SUFFIX} --station farm --public keys/{PUBLIC_NAME}
  twinloop package install --to installed --rollback
  twinloop package aas yaw{SUFFIX} --public keys/{PUBLIC_NAME} --base https://example.org/twins --out yaw.aas.json

exit status: 0 done and sound, 1 a roll-out paused or stopped, 2 refused, with the reason.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    chosen = parser.add_subparsers(dest="what", metavar="WHAT", required=True, help="one of those above")

    found = chosen.add_parser("build", allow_abbrev=False, help="make a signed package")
    found.add_argument("artifact", type=Path, metavar="ARTIFACT", help="folder that training wrote")
    found.add_argument("--plant", type=Path, required=True, metavar="FILE.yaml", help="the site that it is for")
    add_overrides(found, "site.limits.power_cap_kw=9000")
    found.add_argument("--name", required=True, help="what the package is called, the same for all its releases")
    found.add_argument("--release", type=int, required=True, metavar="N", help="a whole number, greater than the last")
    found.add_argument("--key", type=Path, required=True, metavar="FILE", help=f"{PRIVATE_NAME} of `audit keys`")
    found.add_argument("--report", type=Path, metavar="FILE.json", help="an evaluation to put in")
    found.add_argument("--out", type=Path, required=True, metavar=f"FILE{SUFFIX}", help="where to")
    found.set_defaults(act=_build)

    found = chosen.add_parser("verify", allow_abbrev=False, help="check a package; writes nothing")
    _package(found)
    _site(found)
    found.set_defaults(act=_verify)

    found = chosen.add_parser("show", allow_abbrev=False, help="what a package holds, or a folder has installed")
    found.add_argument("package", type=Path, metavar="PACKAGE|DIR", help=f"a {SUFFIX}, or an installation's folder")
    _keys(found, required=False)
    found.set_defaults(act=_show)

    found = chosen.add_parser("install", allow_abbrev=False, help="make a package the current release of a folder")
    found.add_argument("package", type=Path, nargs="?", metavar="PACKAGE", help=f"a {SUFFIX}")
    _keys(found, required=False)
    _site(found)
    found.add_argument("--to", type=Path, metavar="DIR", help="where to; default packages in the station's folder")
    found.add_argument("--allow-older", action="store_true", help="a release that is not newer may be installed")
    found.add_argument("--rollback", action="store_true", help="go back to the release before, instead of PACKAGE")
    found.set_defaults(act=_install)

    found = chosen.add_parser("aas", allow_abbrev=False, help="site and model as Asset Administration Shells")
    found.add_argument("package", type=Path, metavar="PACKAGE|ARTIFACT", help=f"a {SUFFIX}, or an artifact's folder")
    _keys(found, required=False)
    found.add_argument("--base", required=True, metavar="IRI", help="of the site's owner: ids are made below it")
    found.add_argument("--manufacturer", metavar="NAME", help="for the nameplate")
    found.add_argument("--endpoint", metavar="URL", help="the plant's OPC UA server, for its interface")
    found.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="where to")
    found.set_defaults(act=_aas)

    found = chosen.add_parser("rollout", allow_abbrev=False, help="bring a package to many sites, in groups")
    found.add_argument("step", choices=tuple(_STEPS), metavar="STEP", help=", ".join(_STEPS))
    found.add_argument("plan", type=Path, metavar="PLAN.yaml", help="see docs/packages.md")
    found.add_argument("--state", type=Path, metavar="DIR", help="where its state is kept (PLAN.rollout beside it)")
    found.add_argument("--by", metavar="NAME", help="who approves (approve)")
    add_password_option(found)
    found.set_defaults(act=_rollout)


def run(arguments: argparse.Namespace) -> int:
    """Do what was chosen; returns the exit status."""
    act: Callable[[argparse.Namespace], int] = arguments.act
    return act(arguments)


def _build(arguments: argparse.Namespace) -> int:
    from ...envs.plant_file import load_plant_file
    from ..plants import plant_declaration

    site, configuration, _ = load_plant_file(arguments.plant, arguments.overrides)
    declaration = plant_declaration(arguments.plant, arguments.overrides)
    assert declaration is not None  # --plant is required
    data = build(
        arguments.artifact,
        declaration=declaration,
        twin=(site.name, configuration),
        name=arguments.name,
        release=arguments.release,
        key=load_private(arguments.key),
        evaluation=None if arguments.report is None else _report(arguments.report),
    )
    write_file(arguments.out, data)
    package = open_package(arguments.out, [load_private(arguments.key).public])
    print(f"{arguments.out}: {package.title}, {len(data) / 1e6:.2f} MB, for {package.about.site}")
    print(f"signed by {package.signer}")
    return 0


def _report(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--report {path}: cannot be read as JSON ({error}); give an evaluation") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"--report {path}: holds a {type(found).__name__}, expected an object with names")
    return found


def _verify(arguments: argparse.Namespace) -> int:
    package = open_package(arguments.package, _public(arguments), arguments.max_mb)
    print(f"{arguments.package}: {package.title}, for {package.about.site}, signed by {package.signer}")
    here = _here(arguments)
    if here is None:
        print("sound; give --plant, --endpoint or --station to compare nameplate and limits with what is here")
    else:
        check_site(str(arguments.package), package, here)
        print(f"sound, and for the site here ({here.source})")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    if arguments.package.is_dir():
        return _show_installed(arguments.package)
    if not arguments.public:
        raise ConfigurationError(f"--public: give {PUBLIC_NAME}; what nobody you trust has signed is not worth showing")
    package = open_package(arguments.package, _public(arguments), arguments.max_mb)
    about, limits, twin = package.about, package.data(LIMITS), package.data(TWIN)
    rows = [
        ("package", package.title),
        ("signed by", package.signer),
        ("policy", f"{about.policy}, scope {about.scope}"),
        ("site", f"{about.site}, nameplate {about.nameplate_hash}"),
        ("limits", f"{about.limits_hash}, {len(limits['rows'])} constraints"),
        ("twin", f"{twin['site']}, {about.twin_hash}"),
        ("evaluation", "yes" if package.data(EVALUATION) is not None else "none beside the artifact's own report"),
        ("made by", f"twinloop {about.twinloop}"),
    ]
    rows += [("limit", f"{r['name']}: {r['limit']}, {r['priority']}") for r in limits["rows"] if r["origin"] == "site"]
    rows += [("file", f"{name}, {len(data):,} bytes") for name, data in package.members.items()]
    for what, told in rows:
        print(f"{what:<11} {told}")
    return 0


def _show_installed(folder: Path) -> int:
    installation = Installation(folder)
    now = installation.current()
    if now is None:
        print(f"{folder}: nothing is installed")
        return 0
    installation.check(now)
    print(f"{now.title}, policy {now.policy}, signed by {now.signer}")
    print(f"run it with: twinloop run {folder / 'current' / 'artifact'}")
    print(f"before it: {now.before or 'nothing'}")
    return 0


def _aas(arguments: argparse.Namespace) -> int:
    from ..packages.aas import export

    folder = arguments.package if arguments.package.is_dir() else None
    if folder is not None and arguments.public:
        raise ConfigurationError("--public: an artifact's folder is not signed; leave it out, or give a package")
    source = folder or open_package(arguments.package, _public(arguments), arguments.max_mb)
    found = export(source, arguments.base, manufacturer=arguments.manufacturer, endpoint=arguments.endpoint)
    write_file(arguments.out, found.text.encode())
    n_submodels = len(found.environment["submodels"])
    print(f"{arguments.out}: 2 shells, {n_submodels} submodels, {arguments.out.stat().st_size / 1e3:.0f} kB")
    for text in found.missing:
        print(f"left out: {text}")
    return 0


def _install(arguments: argparse.Namespace) -> int:
    installation = Installation(_target(arguments))
    if arguments.rollback:
        if arguments.package is not None:
            raise ConfigurationError(f"--rollback: goes back to the release before; leave {arguments.package} out")
        print(f"back to {installation.rollback().title}")
        return 0
    if arguments.package is None:
        raise ConfigurationError(f"give a PACKAGE (*{SUFFIX}) to install, or --rollback to go back")
    here = _here(arguments)
    if here is None:
        raise ConfigurationError("say what is controlled here: --plant FILE, --endpoint URL, or --station DIR")
    keys = _public(arguments)
    done = installation.install(
        arguments.package, keys, here, allow_older=arguments.allow_older, max_mb=arguments.max_mb
    )
    print(f"{done.title} is installed in {installation.folder}; before: {done.before or 'nothing'}")
    return 0


def _rollout(arguments: argparse.Namespace) -> int:
    if arguments.step != "approve":
        for option in ("by", "password_fd"):
            if getattr(arguments, option) is not None:
                raise ConfigurationError(f"--{option.replace('_', '-')}: is for `rollout approve`; leave it out")
    plan = load_plan(arguments.plan)
    rollout = Rollout(plan, arguments.state or arguments.plan.with_suffix(".rollout"))
    return _STEPS[arguments.step](arguments, plan, rollout)


def _approve(arguments: argparse.Namespace, plan: Plan, rollout: Rollout) -> int:
    if arguments.by is None:
        raise ConfigurationError("--by: say who approves; the password is asked for")
    package = open_package(plan.package, [load_public(path) for path in plan.public])
    print(f"{plan.name}: {package.title}, policy {package.about.policy}, proposed by {plan.by}")
    for group in plan.groups:
        print(f"  {group.name}: {', '.join(group.targets)}; {group.success_pu:.0%} must succeed")
    people = People.read(plan.people)
    fault = fault_of_approver(plan, people, arguments.by)
    if fault:  # before a password is asked for in vain
        raise ConfigurationError(f"{plan.name}: {fault}")
    key = people.unlock(arguments.by, Passwords(arguments.password_fd).ask(arguments.by))
    rollout.file_approval(approve_plan(plan, people, arguments.by, key, time.time()))
    print(f"approved by {arguments.by}; `twinloop package rollout start {arguments.plan}` begins")
    return 0


def _start(arguments: argparse.Namespace, plan: Plan, rollout: Rollout) -> int:
    return _stands(rollout.carry_out(_say, resume=arguments.step == "resume"))


def _status(arguments: argparse.Namespace, plan: Plan, rollout: Rollout) -> int:
    state = rollout.state()
    for group in plan.groups:
        for name in group.targets:
            target = state.targets.get(name, TargetState())
            print(f"{group.name}: {name}: {target.stand}{f': {target.why}' if target.why else ''}")
    _stands(state)
    return 0


def _pause(arguments: argparse.Namespace, plan: Plan, rollout: Rollout) -> int:
    rollout.ask("pause")
    print(f"{plan.name}: asked to pause")
    return 0


def _abort(arguments: argparse.Namespace, plan: Plan, rollout: Rollout) -> int:
    rollout.ask("abort")
    try:
        return _stands(rollout.abort(_say))
    except PackageError:  # somebody carries it out, and has been asked
        print(f"{plan.name}: asked to take everything back")
        return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _stands(state: State) -> int:
    print(f"{state.status}{f': {state.why}' if state.why else ''}")
    return 0 if state.status in ("finished", "aborted") else 1


_STEPS: dict[str, Callable[[argparse.Namespace, Plan, Rollout], int]] = {
    "approve": _approve,
    "start": _start,
    "status": _status,
    "pause": _pause,
    "resume": _start,
    "abort": _abort,
}


def _target(arguments: argparse.Namespace) -> Path:
    if arguments.to is not None:
        return Path(arguments.to)
    if arguments.station is None:
        raise ConfigurationError("say where to install: --to DIR, or --station DIR for packages in its folder")
    return Path(arguments.station) / "packages"


def _here(arguments: argparse.Namespace) -> Here | None:
    if arguments.plant is not None or arguments.endpoint is not None or arguments.overrides:
        return of_plant(arguments.plant, arguments.endpoint, arguments.overrides)
    return None if arguments.station is None else of_station(StationFolder(arguments.station))


def _public(arguments: argparse.Namespace) -> list[PublicKey]:
    if not arguments.public:
        raise ConfigurationError(f"--public: give the {PUBLIC_NAME} of whom you trust to sign packages")
    return [load_public(path) for path in arguments.public]


def _package(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("package", type=Path, metavar="PACKAGE", help=f"a {SUFFIX}")
    _keys(parser)


def _keys(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument(
        "--public",
        type=Path,
        action="append",
        default=[],
        required=required,
        metavar="FILE",
        help=f"{PUBLIC_NAME} of whom you trust; may be given again",
    )
    parser.add_argument(
        "--max-mb", type=float, default=MAX_MB, metavar="N", help="largest package that is read (%(default)g)"
    )


def _site(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plant", type=Path, metavar="FILE.yaml", help="the plant here, from its file")
    add_overrides(parser, "site.limits.power_cap_kw=9000")
    parser.add_argument("--endpoint", metavar="URL", help="the plant here, asked; its limits are then those of --plant")
    parser.add_argument("--station", type=Path, metavar="DIR", help="the plant here, as this station's control told it")
