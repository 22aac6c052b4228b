"""Where files may lie that a sweep names: data, and weights.

Who types a sweep file's path vouches for what that file names, wherever it lies. A sweep that is read back from a
ledger, which others may write to, vouches for nothing: its paths must lead into a *data root*, which is a folder, or a
file, that the operator of this process named. Links are followed before that is judged.

What a user vouched for at a launch is written down in the home folder, so that the same user's `resume` finds it again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeper.errors import DataError

OPTION, VARIABLE = "--data-root", "SWEEPER_DATA_ROOTS"
_LIST = "data-roots.txt"  # in the home folder, a path a line


@dataclass(frozen=True)
class Roots:
    """The data roots of this process.

    Attributes:
        places: folders and files, their links followed; None for a sweep file that its user named: any place will do.
    """

    places: tuple[Path, ...] | None

    @classmethod
    def here(cls, named: Sequence[Path] = (), home: Path | None = None) -> Roots:
        """For sweeps that are read back from a ledger.

        Args:
            named: by --data-root; else those of SWEEPER_DATA_ROOTS count, else the current folder unless that is the
                root of the file system, where services start.
            home: folder with the list of what its user vouched for.
        """
        return cls(tuple(dict.fromkeys([*_named(named), *(vouched(home) if home else ())])))

    def find(self, name: str, folder: Path) -> Path:
        """The path of a file that a sweep names; whether it is there is not looked at.

        Args:
            name: as it stands in the sweep.
            folder: where a relative one starts.

        Raises:
            DataError: it leads out of every root, or is no path.
        """
        try:
            path = folder / Path(name).expanduser()
            real = path.resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, no such user, a null byte
            raise DataError(f"{name!r} is no path of a file here: {error}.") from error
        if self.places is None:
            return path
        if not self.holds(real):
            roots = ", ".join(map(str, self.places)) or "none"
            leads = "" if path == real else f" leads to {real}, which"
            raise DataError(
                f"{path}{leads} lies under no data root of this process ({roots}), and nobody vouched "
                f"for it: this sweep file was not named by its path but read from a ledger. If it may read that, add "
                f"{OPTION} {real.parent}, or set {VARIABLE}={real.parent}."
            )
        return real

    def holds(self, path: Path) -> bool:
        """Whether a path leads into a root."""
        return self.places is None or any(path.resolve().is_relative_to(place) for place in self.places)

    def place(self, folder: Path) -> Path:
        """Where a sweep file's folder is on this machine.

        A folder that is not here, because the sweep was launched on another machine, is sought by the end of its path
        under each root: /home/me/project/studies is /data/project/studies or /data/studies, or /data itself.
        """
        if self.places is None or _is_folder(folder):
            return folder
        ends = [Path(*folder.parts[start:]) for start in range(1, len(folder.parts))]
        found = (root / end for end in (*ends, Path()) for root in self.places)
        return next((place for place in found if _is_folder(place) and self.holds(place)), folder)


ANYWHERE = Roots(None)


def vouched(home: Path) -> tuple[Path, ...]:
    """What was vouched for at launches with this home folder."""
    try:
        lines = (home / _LIST).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    return tuple(Path(line) for line in lines if line)


def vouch(home: Path, paths: Iterable[Path]) -> None:
    """Write down what a user vouches for by naming a sweep file; what can't be written down must be named again."""
    known = vouched(home)
    new = [path for path in dict.fromkeys(path.resolve() for path in paths) if path not in known]
    lines = "".join(f"{path}\n" for path in new if "\n" not in str(path))
    if not lines:
        return
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / _LIST).open("a", encoding="utf-8") as file:
            file.write(lines)
    except OSError:
        return


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # in a folder that this process may not enter; no path at all
        return False


def _named(named: Sequence[Path]) -> list[Path]:
    chosen = list(named) or [Path(text) for text in os.environ.get(VARIABLE, "").split(os.pathsep) if text]
    if chosen:
        return [path.expanduser().resolve() for path in chosen]
    current = Path.cwd().resolve()
    return [] if current == Path(current.anchor) else [current]
