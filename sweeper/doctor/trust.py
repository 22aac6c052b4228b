"""What a sweep that is read from the store may import and read here, and which optional packages are installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sweeper import imports, roots
from sweeper.doctor.findings import Finding, Level, Place

EXTRAS = {"psycopg": ("postgres", "a store on PostgreSQL"), "ray": ("ray", "workers on a Ray cluster (--on)")}
"""Optional packages: the extra that installs each, and what it is for."""


def trust(place: Place) -> Iterator[Finding]:
    """What a worker that was started like this would let a sweep from the store do."""
    if place.allowed:
        yield Finding("imports", Level.OK, f"a sweep from the store may import: {', '.join(place.allowed)}")
    else:
        way = f"{imports.OPTION} PKG or {imports.VARIABLE}"
        yield Finding(
            "imports", Level.OK, f"a sweep from the store may import no code of yours ({way} allows a package)"
        )
    places = place.roots.places or ()
    for root in places:
        if not root.exists():
            yield Finding(
                "data roots", Level.NOTE, f"{root} is not there", f"Make it, or leave it out of {roots.OPTION}."
            )
        elif root == Path(root.anchor):
            mend = f"Name the folder with the data: {roots.OPTION} DIR"
            yield Finding("data roots", Level.NOTE, f"a sweep from the store may read every file ({root})", mend)
    named = ", ".join(map(str, places)) or f"no file ({roots.OPTION} DIR or {roots.VARIABLE} allows a folder)"
    yield Finding("data roots", Level.OK, f"a sweep from the store may read: {named}")


def extras(place: Place) -> Iterator[Finding]:
    """Optional packages, and whether this place needs them."""
    for package, (extra, purpose) in EXTRAS.items():
        try:
            yield Finding("extras", Level.OK, f"{package} {version(package)}, for {purpose}")
        except PackageNotFoundError:
            is_needed = package == "psycopg" and place.store.startswith("postgresql")
            level = Level.PROBLEM if is_needed else Level.NOTE
            said = f"{package}, for {purpose}, is not installed"
            yield Finding("extras", level, said, f"pip install 'sweeper[{extra}]'")
