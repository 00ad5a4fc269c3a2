"""What this machine controls, to compare a package with: from a plant's file, a running plant, or a station."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ...envs.errors import ConfigurationError, NameplateError, PackageError
from ...envs.nameplate import Nameplate
from ..plants import declared_limits, open_plant, plant_declaration
from ..station.folder import StationFolder, read_whole
from .content import LIMITS, NAMEPLATE
from .package import Package


@dataclass(frozen=True)
class Here:
    """The site here; ``source``: where that was read, for messages."""

    nameplate: Nameplate
    limits_hash: str
    source: str


def of_plant(plant_file: Path | None, endpoint: str | None = None, overrides: Sequence[str] = ()) -> Here:
    """As the plant's file declares it, as the plant at ``endpoint`` tells it, or both, which must agree."""
    if overrides and plant_file is None:
        raise ConfigurationError(f"--set {overrides[0]}: overrides a plant's file; give that with --plant")
    if endpoint is None:
        declared = plant_declaration(plant_file, overrides)
        if declared is None:
            raise ConfigurationError("say what is controlled here: --plant FILE, --endpoint URL, or --station DIR")
        return Here(declared.nameplate, declared.hash, f"--plant {plant_file}")
    with closing(open_plant(endpoint=endpoint)) as plant:
        declared = declared_limits(plant.nameplate, plant_file, overrides)
    return Here(declared.nameplate, declared.hash, f"--endpoint {endpoint}")


def of_station(station: StationFolder) -> Here:
    """As the control process of a station told it when it started last."""
    try:
        sheet = read_whole(station.control)
        if sheet is None:
            raise ConfigurationError(
                f"{station.control}: not there yet, so nothing says what is controlled here; start `twinloop run "
                f"--station {station.path}` once, or give --plant FILE"
            )
        return Here(Nameplate.from_dict(sheet["nameplate"]), str(sheet["declaration_hash"]), str(station.control))
    except (OSError, ValueError, KeyError, TypeError, NameplateError) as error:
        raise ConfigurationError(
            f"{station.control}: cannot be read ({error}); start the station's control again, or give --plant FILE"
        ) from error


def check_site(where: str, package: Package, here: Here) -> None:
    """Raise :class:`PackageError` for a package of another nameplate or with other limits than hold here."""
    about = package.about
    if about.nameplate_hash != here.nameplate.hash:
        theirs = Nameplate.from_dict(package.data(NAMEPLATE))
        differences = theirs.differences(here.nameplate) or ["descriptions, tags or hidden signals only"]
        raise PackageError(
            f"{where}: {NAMEPLATE}: is for {about.site!r} with nameplate {about.nameplate_hash[:12]}; here is "
            f"{here.nameplate.site!r} with {here.nameplate.hash[:12]} ({here.source}); package against here: "
            f"{'; '.join(differences[:5])}; install a package that was built for this site"
        )
    if about.limits_hash != here.limits_hash:
        named = [row["name"] for row in package.data(LIMITS)["rows"] if row["origin"] == "site"]
        raise PackageError(
            f"{where}: {LIMITS}: {about.limits_hash[:12]}, allowed are the limits that hold here, "
            f"{here.limits_hash[:12]} ({here.source}); the package declares "
            f"{', '.join(named[:5]) or 'no limits beyond the nameplate'}; build it anew from the site's present file"
        )
