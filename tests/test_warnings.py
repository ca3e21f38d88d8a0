"""What a library is going to take away is noticed before it does."""

from __future__ import annotations

import warnings

import pytest


@pytest.mark.parametrize("category", [FutureWarning, DeprecationWarning])
@pytest.mark.parametrize("module", [__name__, "topreward.qwen.model", "transformers.utils.output_capturing", "ways"])
def test_what_our_calls_cause_is_an_error(category: type[Warning], module: str) -> None:
    with pytest.raises(category):
        warnings.warn_explicit("it goes", category, f"{module}.py", 1, module=module)


@pytest.mark.parametrize("category", [FutureWarning, DeprecationWarning])
def test_what_libraries_do_among_themselves_is_theirs(category: type[Warning]) -> None:
    with pytest.warns(category):
        warnings.warn_explicit("it goes", category, "elsewhere.py", 1, module="elsewhere")
