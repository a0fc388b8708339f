"""Asks two validators that are not ours whether the output's metadata is GeoZarr.

They look at metadata alone; chunks need not be there. This runs where eopf-geozarr is loaded already: after the metadata pass, or
after a stock conversion.

geozarr-toolkit is pointed at the reflectance group: at the root, which has no `spatial:dimensions` of its own, it finds fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from geozarr_runner.source.product import REFLECTANCE
from stac_watch.model.outcome import Check


def check(folder: Path) -> tuple[Check, ...]:
    """Returns the verdicts of `eopf-geozarr validate` and of geozarr-toolkit."""
    return (*_minispec(folder), *_conventions(folder))


def _minispec(folder: Path) -> Iterator[Check]:
    from eopf_geozarr.data_api.geozarr.validation import validate_store

    report = validate_store(str(folder))
    if not any("dataset" in role for roles in report.roles.values() for role in roles):
        if _levels(folder):
            yield Check("minispec", "failed", "reflectance is no dataset on a map grid")
        else:
            yield Check("minispec", "skipped", "the output has no group on a map grid, of which the minispec speaks")
        return
    issues = [str(issue) for issue in report.issues]
    detail = f"eopf-geozarr {version('eopf-geozarr')} validate: "
    detail += _first(issues) if issues else f"{len(report.roles)} nodes compliant"
    yield Check("minispec", "failed" if issues else "passed", detail)


def _conventions(folder: Path) -> Iterator[Check]:
    import zarr
    from geozarr_toolkit import validate_group

    name = "conventions"
    levels = _levels(folder)
    if not levels:
        yield Check(name, "skipped", "the output has no reflectance")
        return
    group = REFLECTANCE if len(levels) > 1 else f"{REFLECTANCE}/{levels[0]}"  # one level is no pyramid
    results = validate_group(zarr.open_group(str(folder), path=group, mode="r"))
    if not results:
        yield Check(name, "failed", f"{group} declares no convention")
        return
    issues = [f"{convention}: {error}" for convention, errors in results.items() for error in errors]
    detail = f"geozarr-toolkit {version('geozarr-toolkit')}: " + (_first(issues) if issues else ", ".join(results))
    yield Check(name, "failed" if issues else "passed", detail)


def _levels(folder: Path) -> list[str]:
    """Returns the levels of reflectance that there are."""
    return sorted(path.parent.name for path in (folder / REFLECTANCE).glob("*/zarr.json"))


def _first(issues: list[str]) -> str:
    return f"{len(issues)} issues, first {issues[0][:300]}"
