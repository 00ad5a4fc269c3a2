"""A trained policy as a folder that runs with numpy and onnxruntime alone.

artifact.json         format, scope, site, hashes of the nameplate, encoders, provenance
report.json           what evaluations found, by name; the one file that may be added to later
nameplate.json        the site that the policy was trained for
policy_<group>.onnx   normaliser, network and scaling: features [rows, F] -> commands [rows, A]
weights_<group>.npz   the same numbers for the forward pass in numpy, which checks the graph at start
MANIFEST.sha256       the hash of every file above, as ``sha256sum -c`` reads it

The manifest finds damage; it is no signature, so take artifacts from where you trust.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..envs.encoder import Encoder
from ..envs.errors import ArtifactError, MissingExtraError, TwinloopError
from ..envs.nameplate import Group, Nameplate
from ..envs.registry import load_site
from ..envs.twin import Observation
from .forward import INPUT, OUTPUT, PolicyNetwork, to_onnx
from .own_signals import OwnSignalsEncoder
from .policy import Commands, Memory

FORMAT_VERSION = 1
MANIFEST = "MANIFEST.sha256"
REPORT = "report.json"
CHECK_TOLERANCE_PU = 1e-5
"""Largest difference of numpy and onnxruntime that passes the start-up check, as a share of a command's range."""

Scope = Literal["site", "interface"]
_MANIFEST_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_.-]+)")


def save_artifact(
    folder: Path,
    *,
    nameplate: Nameplate,
    weights: Mapping[str, PolicyNetwork],
    encoders: Mapping[str, Mapping[str, Any]],
    scope: Scope,
    provenance: Mapping[str, Any],
    report: Mapping[str, Any],
    site: str | None = None,
) -> Path:
    """Write an artifact and return its folder; either the whole of it appears, or nothing.

    ``encoders[group]`` holds ``name`` and ``settings`` of the encoder that ``site`` offers; a group without one sees
    its own signals. ``scope`` is ``"site"`` for a policy of this very plant, ``"interface"`` for one that serves any
    plant with the same signals. ``site`` is the registry's name of the site, by default the nameplate's label
    ``kind``, else its ``site``. An older artifact in ``folder`` is replaced; any other content is left alone and
    refused with :class:`ArtifactError`.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise ArtifactError(f"{folder}: holds files that are no artifact; choose an empty or a new folder")
    for group in weights:
        nameplate.group(group)
        if not re.fullmatch(r"[A-Za-z0-9_-]+", group):
            raise ArtifactError(f"group {group!r}: cannot be part of a file name; use letters, digits, - and _")
    files: dict[str, bytes] = {
        "nameplate.json": _json(nameplate.to_dict()),
        "artifact.json": _json(
            {
                "format_version": FORMAT_VERSION,
                "scope": scope,
                "site": site or nameplate.labels.get("kind") or nameplate.site,
                "nameplate_hash": nameplate.hash,
                "interface_hash": nameplate.interface_hash,
                "groups": sorted(weights),
                "encoders": {group: dict(encoder) for group, encoder in encoders.items()},
                "provenance": provenance,
            }
        ),
        REPORT: _json(report),
    }
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for group, mlp in weights.items():
            files[f"policy_{group}.onnx"] = to_onnx(mlp)
            np.savez(partial / f"weights_{group}.npz", allow_pickle=False, **mlp.to_arrays())
            files[f"weights_{group}.npz"] = (partial / f"weights_{group}.npz").read_bytes()
        files[MANIFEST] = _manifest(files)
        for name, data in files.items():
            with (partial / name).open("wb") as file:
                file.write(data)
                os.fsync(file.fileno())
        _replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def attach_report(folder: Path, name: str, report: Mapping[str, Any]) -> None:
    """Add an evaluation to an artifact's report, replacing an earlier one of that name.

    The artifact's ``hash`` names what acts, so a report does not change it. Raises :class:`ArtifactError` for a folder
    that holds no sound artifact.
    """
    folder = Path(folder)
    _check_manifest(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}
    files[REPORT] = _json({**_report(folder), name: report})
    files[MANIFEST] = _manifest(files)
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file, data in files.items():
        (partial / file).write_bytes(data)
    _replace(partial, folder)


def load_artifact(folder: Path, nameplate: Nameplate | None = None) -> ArtifactPolicy:
    """Read an artifact, check it, and bind it to the plant's ``nameplate`` (its own when None).

    Raises :class:`ArtifactError` for a file that is missing, unexpected or changed, for a graph that numpy does not
    reproduce, and for a plant that the policy was not made for, with the signals that differ.
    """
    folder = Path(folder)
    digest = _check_manifest(folder)
    try:
        about = {**json.loads((folder / "artifact.json").read_bytes()), "report": _report(folder)}
        if about["format_version"] != FORMAT_VERSION:
            raise ArtifactError(
                f"{folder}: format version {about['format_version']}, this twinloop reads {FORMAT_VERSION}; "
                "export the policy again, or install the matching version"
            )
        own = Nameplate.from_dict(json.loads((folder / "nameplate.json").read_bytes()))
        weights: dict[str, PolicyNetwork] = {}
        for group in about["groups"]:
            with np.load(folder / f"weights_{group}.npz", allow_pickle=False) as named:
                weights[group] = PolicyNetwork.from_arrays(dict(named))
        plate = nameplate or own
        _check_fit(folder, about["scope"], own, plate)
        encoders = {group: _encoder(about, group, plate) for group in weights}
    except ArtifactError:
        raise
    except TwinloopError as error:
        raise ArtifactError(f"{folder}: {error}") from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{folder}: cannot be read ({type(error).__name__}: {error}); export it again") from error
    for group, mlp in weights.items():
        _check_widths(folder, plate.group(group), mlp, encoders[group])
    sessions = {group: _session(folder / f"policy_{group}.onnx") for group in weights}
    for group, mlp in weights.items():
        _check_forward(folder, group, mlp, sessions[group])
    return ArtifactPolicy(plate, encoders, sessions, digest, about)


class ArtifactPolicy:
    """A trained policy, as a :class:`~twinloop.agents.policy.Policy`.

    Groups without a network get their neutral commands, and so do absent assets. An asset whose features are not
    finite is answered with NaN, which the shield turns into that asset's fallback. ``hash`` names the artifact in
    journals; ``about`` is what ``artifact.json`` holds.
    """

    def __init__(
        self,
        nameplate: Nameplate,
        encoders: Mapping[str, Encoder],
        sessions: Mapping[str, Any],
        digest: str,
        about: Mapping[str, Any],
    ) -> None:
        self._nameplate = nameplate
        self._encoders = encoders
        self._sessions = sessions
        self.hash = digest
        self.about = about

    @property
    def name(self) -> str:
        return f"artifact-{self.hash[:8]}"

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    def start(self, n_rows: int) -> Memory:
        """The encoders' memory of ``n_rows`` new rows, keyed ``group/name``."""
        found: dict[str, NDArray[Any]] = {}
        for name, encoder in self._encoders.items():
            group = self._nameplate.group(name)
            like = np.zeros((n_rows, group.n_assets, len(group.measured)))
            for key, array in encoder.start(n_rows, group.n_assets, like).items():
                found[f"{name}/{key}"] = array
        return found

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        commands: dict[str, NDArray[np.float64]] = {}
        after: dict[str, NDArray[Any]] = {}
        for group in self._nameplate.groups:
            present = observation.present[group.name]
            neutral = np.broadcast_to(group.neutral(), (*present.shape, len(group.commanded)))
            if group.name not in self._encoders:
                commands[group.name] = neutral.copy()
                continue
            remembered = {k.split("/", 1)[1]: v for k, v in memory.items() if k.split("/", 1)[0] == group.name}
            features, new = self._encoders[group.name].encode(
                observation.measured[group.name],
                observation.statics[group.name],
                present,
                remembered,
                observation.dt_s,
            )
            after.update({f"{group.name}/{k}": v for k, v in new.items()})
            rows = np.asarray(features, dtype=np.float32).reshape(-1, features.shape[-1])
            told = self._sessions[group.name].run([OUTPUT], {INPUT: rows})[0].astype(np.float64)
            told[~np.isfinite(rows).all(axis=1)] = np.nan
            # float32 may round the end of a range to just outside it; the shield would log that as a change.
            told = np.clip(told, group.lower("commanded"), group.upper("commanded")).reshape(neutral.shape)
            commands[group.name] = np.where(present[..., None], told, neutral)
        return commands, after


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "edge", "running a policy artifact") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen classes of its own for a damaged graph
        raise ArtifactError(f"{path}: onnxruntime cannot read it ({error}); export the policy again") from error


def _encoder(about: Mapping[str, Any], group: str, nameplate: Nameplate) -> Encoder:
    told = about["encoders"].get(group)
    if told is None or told["name"] == OwnSignalsEncoder.name:
        return OwnSignalsEncoder(nameplate, group)
    return load_site(about["site"]).encoder(told["name"], nameplate, told.get("settings", {}))


def _check_manifest(folder: Path) -> str:
    """Compare every file with the manifest; return the hash of all but the report's line, which names the artifact."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"{folder}: no {MANIFEST}, so no policy artifact; give the folder that `twinloop train` wrote"
        )
    data = path.read_bytes()
    expected: dict[str, str] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        match = _MANIFEST_LINE.fullmatch(line)
        if match is None:
            raise ArtifactError(f"{path}: line {number} is no manifest entry; the artifact is damaged, copy it again")
        expected[match[2]] = match[1]
    present = {p.name for p in folder.iterdir()} - {MANIFEST}
    changed = [n for n in sorted(expected.keys() & present) if _sha256((folder / n).read_bytes()) != expected[n]]
    wrong = [
        f"{word}: {', '.join(names)}"
        for word, names in (
            ("missing", sorted(expected.keys() - present)),
            ("not in the manifest", sorted(present - expected.keys())),
            ("changed", changed),
        )
        if names
    ]
    if wrong:
        raise ArtifactError(f"{folder}: differs from its manifest ({'; '.join(wrong)}); copy or export it again")
    return _sha256("".join(f"{expected[n]}  {n}\n" for n in sorted(expected) if n != REPORT).encode())


def _manifest(files: Mapping[str, bytes]) -> bytes:
    return "".join(f"{_sha256(files[name])}  {name}\n" for name in sorted(files)).encode()


def _report(folder: Path) -> dict[str, Any]:
    """The report; empty where an artifact came without one."""
    path = folder / REPORT
    found: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    return found


def _check_fit(folder: Path, scope: str, own: Nameplate, plant: Nameplate) -> None:
    interface_only = scope == "interface"
    if own.interface_hash == plant.interface_hash if interface_only else own.hash == plant.hash:
        return
    differences = own.differences(plant, interface_only=interface_only) or ["descriptions, tags or hidden signals only"]
    needs = "a plant with the same signals as" if interface_only else "no other plant than"
    raise ArtifactError(
        f"{folder}: this policy serves {needs} {own.site!r} (here), not {plant.site!r} (there); they differ in: "
        f"{'; '.join(differences)}; use an artifact of this plant, or train one"
    )


def _check_widths(folder: Path, group: Group, mlp: PolicyNetwork, encoder: Encoder) -> None:
    for what, n_network, n_here in (
        ("features", mlp.n_features, encoder.n_features),
        ("commands", mlp.n_commands, len(group.commanded)),
    ):
        if n_network != n_here:
            raise ArtifactError(
                f"{folder}: the network of group {group.name!r} has {n_network} {what}, encoder and nameplate here "
                f"have {n_here}; the artifact comes from another version of the site, export it again"
            )


def _check_forward(folder: Path, group: str, mlp: PolicyNetwork, session: Any) -> None:
    """Numpy and onnxruntime must agree on fixed random features before either may act."""
    spread = np.random.default_rng(0).uniform(-2.0, 2.0, (64, mlp.n_features))
    features = (mlp.feature_mean + mlp.feature_std * spread).astype(np.float32)
    try:
        graph = session.run([OUTPUT], {INPUT: features})[0]
    except Exception as error:  # onnxruntime raises a dozen classes of its own for a graph that does not fit
        raise ArtifactError(f"{folder}: policy_{group}.onnx does not take its features ({error})") from error
    numpy = mlp.forward(features)
    span = np.maximum(np.asarray(mlp.command_upper) - np.asarray(mlp.command_lower), 1e-30)
    worst = math.inf if graph.shape != numpy.shape else float(np.max(np.abs(graph - numpy) / span))
    if not worst <= CHECK_TOLERANCE_PU:
        raise ArtifactError(
            f"{folder}: policy_{group}.onnx and weights_{group}.npz disagree by {worst:.2g} of the command's range, "
            f"allowed {CHECK_TOLERANCE_PU}; they are not the same network, export it again"
        )


def _replace(partial: Path, folder: Path) -> None:
    """Move a finished folder into place; an older one makes room only now."""
    if not folder.exists():
        partial.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _json(data: Any) -> bytes:
    return (json.dumps(_plain(data), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    """JSON types only: numpy scalars and arrays become numbers and lists, NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
