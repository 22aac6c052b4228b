"""A path that a sweep from the store names leads under a data root, whatever it looks like."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeper.errors import DataError
from sweeper.roots import ANYWHERE, VARIABLE, Roots, vouch, vouched


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with data, and a secret beside it that links in the root lead to."""
    inside, outside = tmp_path / "root" / "study", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir(parents=True)
        (folder / "rows.csv").write_text("a,b\n1,2\n")
    (inside / "link.csv").symlink_to(outside / "rows.csv")
    (inside / "linked").symlink_to(outside)
    (inside / "loop").symlink_to(inside / "loop")
    (tmp_path / "root-2").mkdir()
    monkeypatch.setenv("HOME", str(outside))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path / "root-2")
    return tmp_path


@pytest.mark.parametrize("name", ["rows.csv", "../study/rows.csv", "sub/../rows.csv", "{root}/study/rows.csv"])
def test_what_leads_under_a_root_may_be_read(ground: Path, name: str):
    found = Roots.here([ground / "root"]).find(name.format(root=ground / "root"), ground / "root" / "study")
    assert found == (ground / "root" / "study" / "rows.csv").resolve()


@pytest.mark.parametrize(
    "name",
    [
        "../../outside/rows.csv",
        "{ground}/outside/rows.csv",
        "{ground}/root/../outside/rows.csv",
        "{ground}/root-2/rows.csv",  # its name begins like the root's
        "link.csv",
        "linked/rows.csv",
        "~/rows.csv",
        "/dev/stdin",
        "{ground}",
    ],
)
def test_what_leads_elsewhere_is_refused_whether_it_is_there_or_not(ground: Path, name: str):
    with pytest.raises(DataError) as caught:
        Roots.here([ground / "root"]).find(name.format(ground=ground), ground / "root" / "study")
    said = str(caught.value)
    assert f"under no data root of this process ({ground / 'root'})" in said
    assert "add --data-root" in said
    assert "or set SWEEPER_DATA_ROOTS=" in said


@pytest.mark.parametrize("name", ["rows\0.csv", "~nobody-of-this-name/rows.csv", "loop"])
def test_what_is_no_path_is_refused_in_words(ground: Path, name: str):
    with pytest.raises(DataError):
        Roots.here([ground / "root"]).find(name, ground / "root" / "study")


def test_a_file_that_its_user_named_may_name_any_place(ground: Path):
    assert ANYWHERE.find("../../outside/rows.csv", ground / "root" / "study").is_file()
    assert ANYWHERE.place(ground / "gone") == ground / "gone"


def test_the_current_folder_is_a_root_unless_others_are_named(ground: Path, monkeypatch: pytest.MonkeyPatch):
    assert Roots.here().places == (ground / "root-2",)
    assert Roots.here([Path("sub")]).places == (ground / "root-2" / "sub",)
    monkeypatch.setenv(VARIABLE, f"{ground / 'root'}{os.pathsep}{ground / 'outside'}")
    assert Roots.here().places == (ground / "root", ground / "outside")
    assert Roots.here([ground]).places == (ground,)


def test_the_root_of_the_file_system_is_none_by_default(ground: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir("/")
    assert Roots.here().places == ()
    assert Roots.here([Path("/")]).places == (Path("/"),)
    with pytest.raises(DataError, match=r"data root of this process \(none\)"):
        Roots.here().find("rows.csv", ground)


def test_what_was_vouched_for_is_a_root_of_that_home_alone(ground: Path):
    home, file = ground / "home", ground / "outside" / "rows.csv"
    vouch(home, [file, ground / "root" / "study"])
    vouch(home, [ground / "root" / ".." / "root" / "study"])
    assert vouched(home) == (file, ground / "root" / "study")
    assert Roots.here(home=home).find(str(file), ground) == file
    with pytest.raises(DataError):
        Roots.here(home=home).find(str(ground / "outside" / "other.csv"), ground)
    with pytest.raises(DataError):
        Roots.here(home=ground / "other-home").find(str(file), ground)


def test_a_folder_of_another_machine_is_sought_by_the_end_of_its_path(ground: Path):
    roots = Roots.here([ground / "root-2", ground / "root"])
    assert roots.place(Path("/far/away/study")) == ground / "root" / "study"
    assert roots.place(Path("/far/away/nothing")) == ground / "root-2"
    assert roots.place(Path("/far/linked/../study/linked")) == ground / "root-2"  # a link out of the root
    assert roots.place(ground / "outside") == ground / "outside"  # it is here; its files are judged one by one
