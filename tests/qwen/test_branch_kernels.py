"""The branch pass's kernels: what their masks say, how they cut, and that they never make the host wait."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from clips import rolled_clip
from topreward.estimators.topreward import TOPReward
from topreward.qwen import attention
from topreward.qwen.attention import ALIGNMENT, BranchPlan, Group, Kernel, branch_attention, folded_groups
from topreward.qwen.layout import Branch
from topreward.qwen.loading import BEFORE_5
from topreward.qwen.tower import at_once
from topreward.qwen.transfer import upload

HEADS, KV_HEADS, WIDTH = 6, 2, 8


@st.composite
def rows_of_branches(draw: st.DrawFn, most_rows: int = 3) -> list[list[Branch]]:
    """For each row its branches, with stems and tails of any length; the first pass's or a later chunk's."""
    rows = []
    for row in range(draw(st.integers(1, most_rows))):
        start = draw(st.integers(0, 5)) if row == 0 and most_rows == 1 else 0
        branches, trunk = [], 0
        for _ in range(draw(st.integers(1, 6))):
            trunk += draw(st.integers(0, 9))
            stem = start + draw(st.integers(0, 4))
            stops = stem + np.cumsum(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
            branches.append(Branch(trunk, start, stem, tuple(int(stop) for stop in stops), row))
            start = branches[-1].stop
        rows.append(branches)
    return rows


def plan_of(rows: list[list[Branch]], kernel: Kernel = "dense", **options: Any) -> tuple[BranchPlan, int, int]:
    """A plan without a trunk's cache, the tokens of a row, and those of the trunk."""
    branches = tuple(branch for row in rows for branch in row)
    total = max(b.stop for b in branches) - branches[0].start
    return BranchPlan(branches, [], kernel, **options), total, max(b.trunk_length for b in branches)


def expected_mask(plan: BranchPlan, rows: int, total: int, trunk: int) -> np.ndarray:
    """(E, Q, trunk + Q) true where seen, branch by branch; padding sees itself."""
    mask = np.zeros((rows, total, trunk + total), dtype=bool)
    mask[:, np.arange(total), trunk + np.arange(total)] = True
    for b in plan.branches:
        span = slice(b.start - plan.start, b.stop - plan.start)
        mask[b.row, span, : b.trunk_length] = True
        mask[b.row, span, trunk + span.start : trunk + span.stop] = b.mask()
    return mask


@settings(deadline=None)
@given(rows_of_branches(), st.sampled_from([torch.float32, torch.bfloat16]), st.integers(1, 3))
def test_the_mask_is_that_of_the_branches(rows: list[list[Branch]], dtype: torch.dtype, copies: int) -> None:
    plan, total, trunk = plan_of(rows)
    query = torch.zeros(len(rows), copies, total, WIDTH, dtype=dtype)
    bias = plan.bias(Group(0, total, trunk), query, copies)
    seen = expected_mask(plan, len(rows), total, trunk)
    want = torch.zeros(seen.shape, dtype=dtype).masked_fill_(torch.from_numpy(~seen), float("-inf"))
    assert torch.equal(bias, want.repeat(1, copies, 1)[:, None])
    assert all(stride % ALIGNMENT == 0 for stride in bias.stride()[:-1])
    assert bias.stride(-1) == 1
    assert plan.bias(Group(0, total, trunk), query, copies) is bias, "every layer takes the same"


@settings(deadline=None)
@given(rows_of_branches(most_rows=1), st.integers(1, 5))
def test_groups_hold_whole_branches_and_all_they_see(rows: list[list[Branch]], count: int) -> None:
    plan, total, trunk = plan_of(rows, "folded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "folded_groups", lambda tokens: count)
        groups = plan.groups(1, total, trunk)
        assert plan.groups(2, total, trunk) == [Group(0, total, trunk)], "packed videos are not cut"
    assert 1 <= len(groups) <= count
    assert [group.first for group in groups] == [0, *(group.last for group in groups[:-1])]
    assert groups[-1].last == total
    for b in plan.branches:
        [mine] = [g for g in groups if g.first <= b.start - plan.start and b.stop - plan.start <= g.last]
        assert b.trunk_length <= mine.trunk <= trunk


def test_more_tokens_are_worth_more_groups() -> None:
    assert [folded_groups(tokens) for tokens in (1, 299, 300, 599, 600, 9000)] == [1, 1, 2, 2, 4, 4]


@settings(deadline=None, max_examples=60)
@given(rows_of_branches(), st.integers(1, 4), st.integers(0, 2**31))
def test_the_kernels_agree(rows: list[list[Branch]], count: int, seed: int) -> None:
    plan, total, trunk = plan_of(rows)
    random = torch.Generator().manual_seed(seed)

    def drawn(heads: int, tokens: int) -> Tensor:
        return torch.randn(len(rows), heads, tokens, WIDTH, generator=random)

    cache = [(drawn(KV_HEADS, trunk), drawn(KV_HEADS, trunk))]
    query, key, value = drawn(HEADS, total), drawn(KV_HEADS, total), drawn(KV_HEADS, total)
    module = torch.nn.Module()
    module.layer_idx = 0  # type: ignore[assignment]
    kernels: list[Kernel] = ["grouped", "dense", "folded"]
    out = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "folded_groups", lambda tokens: count)
        for kernel in kernels:
            mine = replace(plan, trunk=cache, kernel=kernel, _made={})
            out[kernel], _ = branch_attention(module, query, key, value, None, scaling=0.3, branch_plan=mine)
            assert out[kernel].shape == (len(rows), total, HEADS, WIDTH)
            assert out[kernel].isfinite().all(), "padding is not a number"
    stops = [max(b.stop for b in row) - plan.start for row in rows]
    for row, stop in enumerate(stops):
        for kernel in kernels[1:]:
            torch.testing.assert_close(out[kernel][row, :stop], out["grouped"][row, :stop], atol=1e-5, rtol=1e-5)


def test_folding_carries_gradients_as_the_dense_kernel_does() -> None:
    rows = [[Branch(3, 0, 2, (4, 7)), Branch(8, 7, 7, (9,)), Branch(11, 9, 12, (14,))]]
    plan, total, trunk = plan_of(rows)
    random = torch.Generator().manual_seed(0)
    whole = [torch.randn(1, heads, total, WIDTH, generator=random) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    cache = [torch.randn(1, KV_HEADS, trunk, WIDTH, generator=random) for _ in range(2)]
    module = torch.nn.Module()
    module.layer_idx = 0  # type: ignore[assignment]
    gradients = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "folded_groups", lambda tokens: 2)
        for kernel in ("dense", "folded"):
            inputs = [x.clone().requires_grad_() for x in (*whole, *cache)]
            mine = replace(plan, trunk=[(inputs[3], inputs[4])], kernel=kernel, _made={})
            out, _ = branch_attention(module, *inputs[:3], None, scaling=0.3, branch_plan=mine)
            gradients.append(torch.autograd.grad(out.square().sum(), inputs))
    for dense, folded in zip(*gradients, strict=True):
        torch.testing.assert_close(folded, dense, atol=1e-4, rtol=1e-4)


class Waits(TorchDispatchMode):
    """Notes each operation that, on a GPU, would make the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        masked = name.startswith(("aten.index.", "aten.index_put")) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if masked or any(word in name for word in ("nonzero", "_local_scalar_dense", "masked_select")):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kernel", ["dense", "folded"])
def test_the_decoder_never_makes_the_host_wait(
    tiny: TOPReward, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Waits()
    decode = tiny.model.decode

    def watching(*args: Any, **options: Any) -> Tensor:
        with watched:
            return decode(*args, **options)

    monkeypatch.setattr(tiny.model, "kernel", kernel)
    monkeypatch.setattr(tiny.model, "decode", watching)
    tiny.score(rolled_clip(count=70, height=64, width=96), ["pick up the cup", "Open it."], protocol="paper")
    assert not watched.found


def test_what_makes_the_host_wait_is_noticed() -> None:
    values = torch.arange(4.0)
    for wait in (values[0].item, values.nonzero, lambda: values[values > 1], lambda: values.masked_select(values > 1)):
        with Waits() as watched:
            wait()
        assert watched.found


@pytest.mark.skipif(not BEFORE_5, reason="transformers 5 computes with the sizes on the tower's device")
def test_the_tower_takes_sizes_from_the_host(tiny: TOPReward) -> None:
    # No numbers, but an error where something of the host meets something of the device.
    tower = type(tiny.model.visual)(tiny.model.visual.config).to("meta")
    with at_once(tower, 24):
        embeds, _ = tower(torch.empty(5 * 24, 1536, device="meta"), grid_thw=torch.tensor([[5, 4, 6]]))
    assert embeds.shape == (5 * 6, 64)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU"))])  # fmt: skip
def test_uploads_arrive(device: str) -> None:
    for array in (np.arange(7), np.arange(12).reshape(3, 4)[:, 1:3], np.array([True, False]), np.zeros((0, 3))):
        np.testing.assert_array_equal(upload(array, torch.device(device)).cpu().numpy(), array)
