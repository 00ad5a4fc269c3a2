"""A trained policy as a folder that runs with numpy and onnxruntime alone.

artifact.json         format, scope, site, hashes of the nameplate, encoders, provenance
report.json           what evaluations found, by name; the one file that may be added to later
nameplate.json        the site that the policy was trained for
policy_<group>.onnx   normaliser, network and scaling: features, memory and masks -> commands and memory
weights_<group>.npz   the same numbers for the forward pass in numpy, which checks the graph at start
inputs.npz            a sample of what the policy saw in its evaluation, for who watches its inputs; may be absent
MANIFEST.sha256       the hash of every file above, as ``sha256sum -c`` reads it

The manifest finds damage; it is no signature, so take artifacts from where you trust.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..envs.encoder import Encoder, MaskingEncoder, asked_of, encoded
from ..envs.errors import ArtifactError, MissingExtraError, TwinloopError
from ..envs.nameplate import Group, Nameplate
from ..envs.registry import load_site
from ..envs.twin import Observation
from .artifact_checks import CHECK_TOLERANCE_PU, check_fit, check_forward, check_stacks, check_widths, run_graph
from .artifact_files import MANIFEST, REPORT, check_manifest, read_report, to_json, write_folder
from .artifact_inputs import INPUTS, InputSample, read_inputs, to_bytes
from .forward import PolicyNetwork
from .onnx_graph import to_onnx
from .own_signals import OwnSignalsEncoder
from .policy import Commands, Memory

__all__ = [
    "CHECK_TOLERANCE_PU",
    "FORMAT_VERSION",
    "MANIFEST",
    "REPORT",
    "ArtifactPolicy",
    "attach_report",
    "load_artifact",
    "save_artifact",
]

FORMAT_VERSION = 2
NETWORK_MEMORY = "network.memory"
"""Key of a network's memory, after its group; the dot keeps it apart from the encoders' own keys."""

Scope = Literal["site", "interface"]


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
    inputs: Mapping[str, InputSample] | None = None,
) -> Path:
    """Write an artifact and return its folder; either the whole of it appears, or nothing.

    ``encoders[group]`` holds ``name`` and ``settings`` of the encoder that ``site`` offers; a group without one sees
    its own signals. ``scope`` is ``"site"`` for a policy of this very plant, ``"interface"`` for one that serves any
    plant with the same signals, which separate weights of each asset can't. ``site`` is the registry's name of the
    site, by default the nameplate's label ``kind``, else its ``site``. ``inputs``: what the
    policy saw, by group. An older artifact in ``folder`` is replaced; any other content is left alone and refused with
    :class:`ArtifactError`.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise ArtifactError(f"{folder}: holds files that are no artifact; choose an empty or a new folder")
    for group, network in weights.items():
        check_stacks(folder, nameplate.group(group), network)
        if network.n_stacks > 1 and scope != "site":
            raise ArtifactError(
                f"{folder}: group {group!r} has separate weights for each of its {network.n_stacks} assets, so the "
                f"policy serves this very site; save it with scope 'site', not {scope!r}, or train with shared weights"
            )
        if not re.fullmatch(r"[A-Za-z0-9_-]+", group):
            raise ArtifactError(f"group {group!r}: cannot be part of a file name; use letters, digits, - and _")
    files: dict[str, bytes] = {
        "nameplate.json": to_json(nameplate.to_dict()),
        "artifact.json": to_json(
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
        REPORT: to_json(report),
    }
    for group, network in weights.items():
        files[f"policy_{group}.onnx"] = to_onnx(network)
        arrays = io.BytesIO()
        np.savez(arrays, allow_pickle=False, **network.to_arrays())
        files[f"weights_{group}.npz"] = arrays.getvalue()
    if inputs:
        files[INPUTS] = to_bytes(inputs)
    write_folder(folder, files)
    return folder


def attach_report(folder: Path, name: str, report: Mapping[str, Any]) -> None:
    """Add an evaluation to an artifact's report, replacing an earlier one of that name.

    The artifact's ``hash`` names what acts, so a report does not change it. Raises :class:`ArtifactError` for a folder
    that holds no sound artifact.
    """
    folder = Path(folder)
    check_manifest(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}
    write_folder(folder, {**files, REPORT: to_json({**read_report(folder), name: report})})


def load_artifact(
    folder: Path, nameplate: Nameplate | None = None, *, graphs: bool = True, own: Collection[str] | None = None
) -> ArtifactPolicy:
    """Read an artifact, check it, and bind it to the plant's ``nameplate`` (its own when None).

    ``own``: agents that the policy answers for, None for all. Without ``graphs`` they are neither opened nor compared
    with numpy, and the policy can't act: for a process that lets another one evaluate.
    Raises :class:`ArtifactError` for a file that is missing, unexpected or changed, for a graph that numpy does not
    reproduce, and for a plant that the policy was not made for, with the signals that differ.
    """
    folder = Path(folder)
    digest = check_manifest(folder)
    try:
        about = {**json.loads((folder / "artifact.json").read_bytes()), "report": read_report(folder)}
        if about["format_version"] != FORMAT_VERSION:
            raise ArtifactError(
                f"{folder}: format version {about['format_version']}, this twinloop reads {FORMAT_VERSION}; "
                "export the policy again, or install the matching version"
            )
        made_for = Nameplate.from_dict(json.loads((folder / "nameplate.json").read_bytes()))
        weights: dict[str, PolicyNetwork] = {}
        for group in about["groups"]:
            with np.load(folder / f"weights_{group}.npz", allow_pickle=False) as named:
                weights[group] = PolicyNetwork.from_arrays(dict(named))
        inputs = read_inputs(folder)
        plate = nameplate or made_for
        check_fit(folder, about["scope"], made_for, plate)
        encoders = {group: _encoder(about, group, plate) for group in weights}
    except ArtifactError:
        raise
    except TwinloopError as error:
        raise ArtifactError(f"{folder}: {error}") from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{folder}: cannot be read ({type(error).__name__}: {error}); export it again") from error
    for group, network in weights.items():
        check_widths(folder, plate.group(group), network, encoders[group])
    sessions = {group: _session(folder / f"policy_{group}.onnx") for group in weights} if graphs else {}
    for group, network in weights.items() if graphs else ():
        check_forward(folder, plate.group(group), network, sessions[group])
    return ArtifactPolicy(plate, encoders, weights, sessions, digest, about, inputs, own)


class ArtifactPolicy:
    """A trained policy, as a :class:`~twinloop.agents.policy.Policy`.

    Groups without a network get their neutral commands, and so do absent assets, whose memory is zero. An asset whose
    features are not finite is answered with NaN, which the shield turns into that asset's fallback, and remembers what
    it remembered before. ``own``: agents that it answers for, None for all; the others get their neutral commands, so
    that what an asset costs does not depend on how many others there are. ``hash`` names the artifact in journals;
    ``about`` is what ``artifact.json`` holds; ``encoders`` make a group's features, and ``inputs`` is a sample of those
    of the evaluation, empty in an artifact without.
    """

    def __init__(
        self,
        nameplate: Nameplate,
        encoders: Mapping[str, Encoder],
        networks: Mapping[str, PolicyNetwork],
        sessions: Mapping[str, Any],
        digest: str,
        about: Mapping[str, Any],
        inputs: Mapping[str, InputSample] | None = None,
        own: Collection[str] | None = None,
    ) -> None:
        self._nameplate = nameplate
        self.encoders = encoders
        self._networks = networks
        self._sessions = sessions
        self.hash = digest
        self.about = about
        self.inputs = inputs or {}
        self.own = None if own is None else frozenset(own)
        self._asked = asked_of(nameplate, self.own)
        self._neutral = {g.name: g.neutral() for g in nameplate.groups}
        self._ends = {g.name: (g.lower("commanded"), g.upper("commanded")) for g in nameplate.groups}

    @property
    def name(self) -> str:
        return f"artifact-{self.hash[:8]}"

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    def start(self, n_rows: int) -> Memory:
        """What encoders and networks remember of ``n_rows`` new rows, keyed ``group/name``."""
        found: dict[str, NDArray[Any]] = {}
        for name, encoder in self.encoders.items():
            group, network = self._nameplate.group(name), self._networks[name]
            like = np.zeros((n_rows, group.n_assets, len(group.measured)))
            for key, array in encoder.start(n_rows, group.n_assets, like).items():
                found[f"{name}/{key}"] = array
            if network.n_memory:
                found[f"{name}/{NETWORK_MEMORY}"] = np.zeros((n_rows, group.n_assets, network.n_memory), np.float32)
        return found

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        commands: dict[str, NDArray[np.float64]] = {}
        after: dict[str, NDArray[Any]] = {}
        for group in self._nameplate.groups:
            if group.name in self.encoders:
                remembered = {k.split("/", 1)[1]: v for k, v in memory.items() if k.split("/", 1)[0] == group.name}
                commands[group.name], new = self._act(group, observation, remembered)
                after.update({f"{group.name}/{k}": v for k, v in new.items()})
            else:
                neutral = self._neutral[group.name]
                commands[group.name] = np.zeros((*observation.present[group.name].shape, len(neutral))) + neutral
        return commands, after

    def _act(
        self, group: Group, observation: Observation, memory: dict[str, NDArray[Any]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]]]:
        """Commands ``[B, N, A]`` of one group, and what it remembers."""
        encoder, network = self.encoders[group.name], self._networks[group.name]
        present = observation.present[group.name]
        seen = observation.measured[group.name], observation.statics[group.name], present
        before = memory.pop(NETWORK_MEMORY, None)
        asked = self._asked.get(group.name)
        features, new = encoded(encoder, *seen, memory, observation.dt_s, asked)
        features = np.asarray(features, np.float32)
        if before is None:
            before = np.empty((*present.shape, 0), np.float32)
        legal = None
        if network.layout.discrete and isinstance(encoder, MaskingEncoder):
            legal = network.layout.legal(np.asarray(encoder.legal(*seen)), present)
        told, after = run_graph(self._sessions[group.name], network, features, before, legal)
        told = _exact(told.astype(np.float64), self._ends[group.name], network)
        finite = np.isfinite(features).all(-1)
        if not finite.all():
            told[~finite] = np.nan
        remembered = dict(new)
        if network.n_memory:
            kept = np.where(finite[..., None], after, before)
            remembered[NETWORK_MEMORY] = np.where(present[..., None], kept, np.float32(0))
        answered = present if asked is None else present & asked
        return np.where(answered[..., None], told, self._neutral[group.name]), remembered


def _exact(
    commands: NDArray[np.float64], ends: tuple[NDArray[np.float64], NDArray[np.float64]], network: PolicyNetwork
) -> NDArray[np.float64]:
    """Undo the rounding of float32, which the shield would log as a change: ends of ranges, and levels."""
    commands = np.minimum(np.maximum(commands, ends[0]), ends[1])
    for column, values in zip(network.layout.discrete, network.layout.levels, strict=True):
        levels = np.array(values)
        commands[..., column] = levels[np.abs(commands[..., column, None] - levels).argmin(-1)]
    return commands


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
