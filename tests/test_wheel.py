"""The wheel, installed alone: no checkout, none of the tools of development, run from another folder.

Its dependencies are linked from the running environment, each by the names that its own metadata gives, so that
nothing is downloaded and what is not declared is not there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from places import ROOT
from topreward.demo.episodes import demo_episodes
from topreward.demo.write import write_video


def run(*command: str | Path, cwd: Path) -> str:
    """What it prints. It gets none of this process's own paths."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needs(texts: list[str], extras: set[str], seen: set[tuple[str, str]]) -> Iterator[Distribution]:
    """The distributions that these requirements ask for, and those that they ask for in turn."""
    for requirement in map(Requirement, texts):
        if requirement.marker and not any(requirement.marker.evaluate({"extra": e}) for e in ["", *extras]):
            continue
        found = distribution(requirement.name)
        yield found
        wanted = {e for e in ["", *requirement.extras] if (requirement.name, e) not in seen}
        seen |= {(requirement.name, e) for e in wanted}
        if wanted:
            yield from needs(found.requires or [], wanted, seen)


def link(found: Distribution, place: Path) -> None:
    """Its packages and modules, as if it were installed in `place`."""
    tops = {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}
    assert tops, f"{found.name} names no files"
    for top in tops:
        if not top.endswith(".pth") and not (place / top).exists():
            (place / top).symlink_to(found.locate_file(top))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment that holds the wheel and what it declares."""
    home = tmp_path_factory.mktemp("alone") / "venv"
    run(sys.executable, "-m", "venv", home, cwd=home.parent)
    python = home / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=home.parent)
    place = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=home.parent).strip())
    (metadata,) = place.glob("topreward-*.dist-info")
    for found in needs(Distribution.at(metadata).requires or [], set(), set()):
        link(found, place)
    return python.parent


def test_it_holds_all_that_is_no_code(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("topreward", ""), ("configs", "topreward/")):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert {inside + path.relative_to(ROOT).as_posix() for path in files} - held == set()
    assert "topreward/demo/checkpoint/model.safetensors" in held
    assert "topreward/configs/paper.yaml" in held
    assert not [name for name in held if not re.match(r"topreward(/|-[\d.]+\.dist-info/)", name)]


def test_the_tools_of_development_are_not_there(scripts: Path) -> None:
    code = "from importlib.util import find_spec as f; print([m for m in ('pytest', 'hatchling', 'mypy') if f(m)])"
    assert run(scripts / "python", "-c", code, cwd=scripts).strip() == "[]"


def test_score(scripts: Path, tmp_path: Path) -> None:
    write_video(next(iter(demo_episodes(1, seed=1))).clip(), tmp_path / "film.mp4")
    out = ["--json", "curve.json"]
    run(scripts / "topreward", "score", "film.mp4", "close the drawer", "--model", "demo", *out, cwd=tmp_path)
    assert json.loads((tmp_path / "curve.json").read_text())["instruction"] == "close the drawer"


def test_eval(scripts: Path, tmp_path: Path) -> None:
    data = ["--dataset", "demo:?count=2", "--output", "run"]
    shown = run(scripts / "topreward", "eval", "--model", "demo", *data, cwd=tmp_path)
    assert "VOC over 2 episodes" in shown
    assert (tmp_path / "run" / "results.json").is_file()
