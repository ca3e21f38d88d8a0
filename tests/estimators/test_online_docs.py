"""docs/online.md shows what its session prints."""

from __future__ import annotations

import re

import pytest

from places import ROOT


def test_the_session_prints_what_the_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "online.md").read_text()
    code, shown = re.search(r"```python\n(.*?)```\s+```text\n(.*?)```", page, re.DOTALL).groups()  # type: ignore[union-attr]
    exec(code, {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(shown.splitlines()) > 5
    for ours, page_line in zip(printed, shown.splitlines(), strict=True):
        number = r"-?\d+\.\d+"
        assert re.sub(number, "#", ours) == re.sub(number, "#", page_line)
        for a, b in zip(re.findall(number, ours), re.findall(number, page_line), strict=True):
            assert float(a) == pytest.approx(float(b), abs=0.021)
