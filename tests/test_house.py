"""The house's own rules: what is public, what may import what, what stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import topreward

ROOT = Path(topreward.__file__).parent

# A room may import from its own floor and from the floors below (lower numbers).
FLOORS = [
    {"errors"},
    {"files", "limits", "metrics", "monitor", "rewards", "provenance"},
    {"types"},
    {"config"},
    {"video", "sampling"},
    {"qwen"},
    {"estimators", "datasets", "demo"},
    {"jobs"},
    {"evaluation", "labels"},
    {"report"},
    {"cli"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def test_public_names() -> None:
    assert topreward.__all__ == [
        "GVL",
        "Clip",
        "Curve",
        "Episode",
        "Protocol",
        "Stream",
        "SuccessMonitor",
        "TOPReward",
        "TopRewardError",
        "__version__",
        "advantage_weights",
        "bootstrap_mean",
        "dense_rewards",
        "kendall_tau",
        "load_gvl_protocol",
        "load_protocol",
        "open_dataset",
        "progress",
        "read_video",
        "voc",
    ]
    for name in topreward.__all__:
        assert getattr(topreward, name) is not None
    assert dir(topreward) == sorted(topreward.__all__)
    with pytest.raises(AttributeError, match="no attribute 'vocc'"):
        _ = topreward.vocc


def test_importing_topreward_imports_no_torch() -> None:
    code = (
        "import sys, topreward as tr\n"
        "tr.voc([1, 2]); tr.load_protocol('paper'); tr.Clip; tr.SuccessMonitor; tr.read_video; tr.open_dataset\n"
        "import topreward.estimators.topreward.prompts, topreward.estimators.gvl.prompts\n"
        "import topreward.estimators.gvl.answers; tr.load_gvl_protocol('gvl')\n"
        "print([m for m in ('torch', 'transformers', 'matplotlib', 'rich') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def modules() -> list[Path]:
    return [p for p in sorted(ROOT.rglob("*.py")) if p != ROOT / "__init__.py"]


def imports(path: Path) -> set[str]:
    """All modules that a file names in imports, also inside functions; type-checking blocks left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "topreward":
                found.update(f"topreward.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def room(path: Path) -> str:
    part = path.relative_to(ROOT).parts[0]
    return part.removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    here = FLOOR[room(path)]
    for name in imports(path):
        if name.startswith("topreward."):
            other = name.split(".")[1]
            assert other == room(path) or FLOOR[other] <= here, f"{room(path)} imports {name}, which is above it"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_qwen_room_knows_transformers(path: Path) -> None:
    if room(path) != "qwen" and path.name not in ("tiny.py", "training.py"):
        assert not any(name.split(".")[0] == "transformers" for name in imports(path))


def test_every_module_opens_with_its_contract() -> None:
    silent = [str(p.relative_to(ROOT)) for p in modules() if not ast.get_docstring(ast.parse(p.read_text()))]
    assert not silent
