"""The locks: plain pins, one of everything that pyproject.toml names, and each as pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from places import ROOT, TESTS

LOCKS = sorted((TESTS / "locks").iterdir())
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINUX = {"platform_system": "Linux", "platform_machine": "x86_64", "sys_platform": "linux"}


def pins(lock: Path) -> dict[str, str]:
    return dict(line.split("==") for line in lock.read_text().splitlines())


def named() -> list[Requirement]:
    """All that a checkout needs on Linux: to run, with every extra that the tests run with, and to be built.

    Not `fla`, whose kernels are for a GPU alone.
    """
    project = PYPROJECT["project"]
    texts = [*project["dependencies"], *PYPROJECT["build-system"]["requires"]]
    texts += [text for name, extra in project["optional-dependencies"].items() if name != "fla" for text in extra]
    found = [Requirement(text) for text in texts]
    return [r for r in found if r.marker is None or r.marker.evaluate(LINUX)]


def test_there_is_one_for_each_python() -> None:
    assert [lock.name for lock in LOCKS] == ["py311-transformers-4.57.6.txt", "py311.txt", "py312.txt", "py313.txt"]
    for minor in (11, 12, 13):
        assert f"3.{minor}" in SpecifierSet(PYPROJECT["project"]["requires-python"])


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_they_hold_pins_and_nothing_else(lock: Path) -> None:
    lines = lock.read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][A-Za-z0-9.]*", line)] == []
    assert lines == sorted(set(lines), key=lambda line: line.split("==")[0])


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_all_that_the_project_names_is_pinned_as_it_allows(lock: Path) -> None:
    pinned = pins(lock)
    assert [r.name for r in named() if canonicalize_name(r.name) not in pinned] == []
    assert [str(r) for r in named() if pinned[canonicalize_name(r.name)] not in r.specifier] == []


def test_the_old_one_is_of_the_papers_transformers() -> None:
    old, new = (pins(TESTS / "locks" / name) for name in ("py311-transformers-4.57.6.txt", "py311.txt"))
    assert old["transformers"] == "4.57.6"
    assert old["huggingface-hub"] in SpecifierSet("<1")
    assert old["torch"] == new["torch"], "the old environment borrows the new one's"
