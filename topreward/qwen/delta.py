"""The linear layers of Qwen3.5 and 3.6 in one pass: their state is cut where a prefix leaves the trunk.

Three of four decoder layers there are gated DeltaNet: a short convolution, then a rule that folds every token into
one state. A mask cannot show a prefix its part of that. So a pass is laid out in *stretches*, each of which begins
where another one ended: the trunk from branch point to branch point, then of every branch the stem, then its tails.
The convolution runs once over all stretches, each behind the inputs that came before it; the rule runs stretch by
stretch, those that wait for nothing else as rows of one call, and the states at the branch points are kept.

In go the hidden states of a flat run of tokens and a `DeltaPlan`; out comes what the library's layer would give each
token at the end of its own prefix. Projections, convolution, norm and the rule itself are the library's modules and
functions, so quantised weights, adapters and offloading are what the library makes of them. Knows nothing of texts
and prompts, and needs no cache of the library.

Source: Yang et al., Gated Delta Networks, arXiv 2412.06464.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus
from transformers.activations import ACT2FN

from topreward.qwen.layout import Branch
from topreward.qwen.transfer import upload

# Tokens that the rule takes at once inside a call: a row is padded to a multiple of it.
RULE_CHUNK = 64

Point = tuple[str, int, int]
"""Where a state is kept: ("trunk", row, tokens seen), or ("stem", number of the branch, 0)."""


class State(NamedTuple):
    """What one linear layer knows of all tokens up to a point."""

    inputs: Tensor
    """(kernel - 1, channels) the last inputs of the convolution."""
    memory: Tensor
    """(value heads, key width, value width) float32, the rule's state."""


States = dict[int, dict[Point, State]]
"""By layer, then by point."""


@dataclass(frozen=True)
class Stretch:
    """Tokens that follow each other, from one state to the next."""

    first: int
    """They are [first, last) of the flat tokens of the pass."""
    last: int
    begins: Point | None
    """The state that they go on from; None: nothing was before."""
    ends: Point | None = None
    """Where the state after them is kept; None: nobody asks."""

    def __len__(self) -> int:
        return self.last - self.first


@dataclass(frozen=True, eq=False)
class Call:
    """Stretches that are rows of one call of the rule."""

    stretches: tuple[Stretch, ...]
    index: NDArray[np.int64]
    """(R, n) which token stands where; padding points at token 0."""
    valid: NDArray[np.bool_]
    """(R, n)"""


@dataclass(frozen=True, eq=False)
class Window:
    """How the convolution runs once over all stretches. Its pool of inputs is: zeros, those carried in, the pass's."""

    arranged: NDArray[np.int64]
    """(M,) of the pool: every stretch behind the kernel - 1 inputs before it."""
    place: NDArray[np.int64]
    """(N,) where each token of the pass stands in that."""
    kept: NDArray[np.int64]
    """(S, kernel - 1) of the pool: the last inputs at each point that is kept."""


@dataclass(eq=False)
class DeltaPlan:
    """What the linear layers of one pass need to know."""

    stretches: tuple[Stretch, ...]
    """In an order in which each comes after the one it goes on from."""
    tokens: int
    """N, flat tokens of the pass, padding included."""
    before: Mapping[int, Mapping[Point, State]] = field(default_factory=dict)
    """States that earlier passes left."""
    keeps: bool = False
    """Whether the states at the stretches' ends outlive the pass."""
    states: States = field(default_factory=dict)
    """Those of this pass, where it keeps them."""
    _made: dict[Any, Any] = field(default_factory=dict)

    @property
    def points(self) -> tuple[Point, ...]:
        """Where states are kept, in order."""
        return tuple(s.ends for s in self.stretches if s.ends is not None)

    @property
    def carried(self) -> tuple[Point, ...]:
        """States of earlier passes that stretches go on from."""
        mine = set(self.points)
        return tuple(dict.fromkeys(s.begins for s in self.stretches if s.begins is not None and s.begins not in mine))

    def calls(self) -> list[Call]:
        """The calls of the rule: all stretches whose states are there, those of like length together."""
        if "calls" not in self._made:
            self._made["calls"] = [_call(stretches) for stretches in _together(self.stretches)]
        calls: list[Call] = self._made["calls"]
        return calls

    def gathered(self) -> NDArray[np.int64] | None:
        """(N,) where each token's output stands among the calls'; None where they come in order."""
        if "gathered" not in self._made:
            place = np.zeros(self.tokens, dtype=np.int64)  # padding takes any: nobody reads it
            first = 0
            for call in self.calls():
                spots = first + np.arange(call.valid.size).reshape(call.valid.shape)
                place[call.index[call.valid]] = spots[call.valid]
                first += call.valid.size
            plain = first == self.tokens and np.array_equal(place, np.arange(first))
            self._made["gathered"] = None if plain else place
        found: NDArray[np.int64] | None = self._made["gathered"]
        return found

    def window(self, kernel: int) -> Window:
        """How a convolution of that many taps runs."""
        key = ("window", kernel)
        if key not in self._made:
            self._made[key] = _window(self, kernel - 1)
        window: Window = self._made[key]
        return window

    def on(self, device: torch.device, name: str, array: NDArray[Any]) -> Tensor:
        """An index array on the device, once for all layers there."""
        key = (name, device)
        if key not in self._made:
            self._made[key] = upload(array, device)
        out: Tensor = self._made[key]
        return out


def trunk_plan(
    branches: Sequence[Branch],
    *,
    width: int,
    past: int = 0,
    before: Mapping[int, Mapping[Point, State]] | None = None,
) -> DeltaPlan:
    """The trunk of one video, or a row of `width` tokens for each of several, cut where `branches` leave it.

    `past`: trunk tokens of earlier passes, whose last states are in `before`.
    """
    rows = max(b.row for b in branches) + 1
    stretches = []
    for row in range(rows):
        stops = sorted({b.trunk_length for b in branches if b.row == row and b.trunk_length > past})
        for start, stop in zip([past, *stops], stops, strict=False):
            first = row * width - past
            begins = ("trunk", row, start) if start else None
            stretches.append(Stretch(first + start, first + stop, begins, ("trunk", row, stop)))
    return DeltaPlan(tuple(stretches), rows * width, before or {}, keeps=True)


def branch_plan(branches: Sequence[Branch], states: States, *, width: int) -> DeltaPlan:
    """Branches that go on from the trunk's states: each stem, then every tail from its stem's end.

    `width`: branch tokens in each row of the pass.
    """
    start = branches[0].start  # several videos begin at 0
    stems, tails = [], []
    for number, b in enumerate(branches):
        offset = b.row * width - start
        begins: Point | None = ("trunk", b.row, b.trunk_length) if b.trunk_length else None
        first = b.start
        if len(b.tail_stops) > 1 and b.stem_stop > b.start:
            stem: Point = ("stem", number, 0)
            stems.append(Stretch(offset + b.start, offset + b.stem_stop, begins, stem))
            begins, first = stem, b.stem_stop
        for position, stop in enumerate(b.tail_stops):
            if position:
                first = b.tail_stops[position - 1]
            tails.append(Stretch(offset + first, offset + stop, begins))
    rows = max(b.row for b in branches) + 1
    return DeltaPlan((*stems, *tails), rows * width, states)


def branch_points(branches: Iterable[Branch]) -> list[Point]:
    """The points whose states these branches need, in order; a prefix of one frame needs none."""
    return list(dict.fromkeys(("trunk", b.row, b.trunk_length) for b in branches if b.trunk_length))


def held_bytes(states: States) -> int:
    """Bytes of memory that states hold, each piece once."""
    tensors = [tensor for points in states.values() for state in points.values() for tensor in state]
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(held.values())


def longest_stretch(branches: Sequence[Branch]) -> int:
    """Most trunk tokens between two branch points."""
    return max((len(s) for s in trunk_plan(branches, width=0).stretches), default=0)


@contextmanager
def mixing(layers: Iterable[Any], plan: DeltaPlan) -> Iterator[None]:
    """Within it, the linear ones of these decoder layers mix tokens by the plan."""
    modules = [layer.linear_attn for layer in layers if hasattr(layer, "linear_attn")]
    # accelerate wraps `forward` to bring offloaded weights in, and calls what it wrapped by this name.
    names = ["_old_forward" if hasattr(module, "_hf_hook") else "forward" for module in modules]
    found = [vars(module).get(name) for module, name in zip(modules, names, strict=True)]
    try:
        for module, name in zip(modules, names, strict=True):
            setattr(module, name, partial(mix, module, plan))
        yield
    finally:
        for module, name, own in zip(modules, names, found, strict=True):
            if own is not None:
                setattr(module, name, own)
            else:
                vars(module).pop(name, None)


def mix(module: Any, plan: DeltaPlan, hidden_states: Tensor, **_: Any) -> Tensor:
    """One linear layer over all stretches of a pass: (E, L, hidden) → (E, L, hidden)."""
    layer, device = int(module.layer_idx), hidden_states.device
    before = plan.before.get(layer, {})
    known = {point: before[point] for point in plan.carried}

    window = plan.window(int(module.conv_kernel_size))
    flat = module.in_proj_qkv(hidden_states).flatten(0, 1)
    pool = torch.cat([flat.new_zeros(1, flat.shape[-1]), *(state.inputs for state in known.values()), flat])
    convolved = _convolved(module, pool, window, plan)
    inputs = pool[plan.on(device, "kept", window.kept)]

    gate = module.in_proj_z(hidden_states)
    beta = module.in_proj_b(hidden_states).flatten(0, 1).sigmoid()
    rate = module.in_proj_a(hidden_states).flatten(0, 1).float()
    decay = -module.A_log.float().exp() * softplus(rate + module.dt_bias)  # fp32: in fp16 it may be -inf

    parts = torch.split(convolved, [module.key_dim, module.key_dim, module.value_dim], dim=-1)
    widths = module.head_k_dim, module.head_k_dim, module.head_v_dim
    query, key, value = (p.reshape(len(p), -1, width) for p, width in zip(parts, widths, strict=True))
    shared = value.shape[1] // key.shape[1]
    if shared > 1:
        query, key = query.repeat_interleave(shared, dim=1), key.repeat_interleave(shared, dim=1)

    memories = {point: state.memory for point, state in known.items()}
    rule = delta_rule(module, device)
    outputs = [
        _ruled(rule, plan, number, call, (query, key, value, decay, beta), memories)
        for number, call in enumerate(plan.calls())
    ]
    mixed = torch.cat(outputs)
    gathered = plan.gathered()
    if gathered is not None:
        mixed = mixed[plan.on(device, "gathered", gathered)]
    if plan.keeps:
        plan.states[layer] = {p: State(inputs[i], memories[p]) for i, p in enumerate(plan.points)}

    normed = module.norm(mixed.reshape(-1, module.head_v_dim), gate.reshape(-1, module.head_v_dim))
    out: Tensor = module.out_proj(normed.reshape(*hidden_states.shape[:-1], -1))
    return out


def _convolved(module: Any, pool: Tensor, window: Window, plan: DeltaPlan) -> Tensor:
    """(pool, channels) → (N, channels) after convolution and activation, each token behind its own past."""
    arranged = pool[plan.on(pool.device, "arranged", window.arranged)].T[None]
    # Called as a module, so that hooks see it. Its padding on the left only lengthens what nobody reads.
    out = module.conv1d(arranged.to(module.conv1d.weight.dtype))[0, :, : len(window.arranged)]
    out = ACT2FN[module.activation](out).to(pool.dtype)
    placed: Tensor = out.T[plan.on(pool.device, "place", window.place)]
    return placed


def _ruled(
    rule: Callable[..., tuple[Tensor, Tensor | None]],
    plan: DeltaPlan,
    number: int,
    call: Call,
    tokens: tuple[Tensor, ...],
    memories: dict[Point, Tensor],
) -> Tensor:
    """One call of the rule: (R · n, value heads, value width). Adds the states that its stretches end in."""
    device = tokens[0].device
    if len(call.stretches) == 1:
        [only] = call.stretches
        query, key, value, decay, beta = (x[None, only.first : only.last] for x in tokens)
    else:
        index = plan.on(device, f"index {number}", call.index)
        query, key, value, decay, beta = (x[index] for x in tokens)
        # A token with beta 0 and log-decay 0 leaves the state as it is. Inputs of zero would not: it still decays.
        valid = plan.on(device, f"valid {number}", call.valid)[..., None]
        decay, beta = decay * valid, beta * valid
    begins = [memories[s.begins] if s.begins is not None else None for s in call.stretches]
    there = next((m for m in begins if m is not None), None)
    initial = None
    if there is not None:
        initial = torch.stack([torch.zeros_like(there) if m is None else m for m in begins])
    wanted = any(s.ends is not None for s in call.stretches)
    out, last = rule(
        query,
        key,
        value,
        g=decay,
        beta=beta,
        initial_state=initial,
        output_final_state=wanted,
        use_qk_l2norm_in_kernel=True,
    )
    if last is not None:
        for row, stretch in enumerate(call.stretches):
            if stretch.ends is not None:
                memories[stretch.ends] = last[row].float()
    return out.flatten(0, 1)


def delta_rule(module: Any, device: torch.device) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The gated delta rule for this layer: flash-linear-attention's on a GPU where it is installed, else torch's."""
    fast = _flash_rule() if device.type == "cuda" else None
    return fast or _torch_rule(type(module).__module__)


def rule_name(device: torch.device) -> str:
    """Which rule a pass on that device runs, for provenance."""
    if device.type == "cuda" and _flash_rule() is not None:
        return f"flash-linear-attention {importlib.metadata.version('flash-linear-attention')}"
    return "torch"


@cache
def _flash_rule() -> Callable[..., tuple[Tensor, Tensor | None]] | None:
    try:
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    except Exception:  # it compiles and probes at import, and fails in many ways
        return None
    rule: Callable[..., tuple[Tensor, Tensor | None]] = chunk_gated_delta_rule
    return rule


@cache
def _torch_rule(modeling: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    rule: Callable[..., tuple[Tensor, Tensor | None]] = sys.modules[modeling].torch_chunk_gated_delta_rule
    return getattr(rule, "__wrapped__", rule)  # newer versions wrap it in a choice of kernels; here that is ours


def _together(stretches: Sequence[Stretch]) -> Iterator[list[Stretch]]:
    """Stretches that wait for none but earlier ones, by the number of chunks that each takes."""
    waiting = list(stretches)
    while waiting:
        coming = {s.ends for s in waiting if s.ends is not None}
        ready = [s for s in waiting if s.begins is None or s.begins not in coming]
        alike: dict[int, list[Stretch]] = {}
        for stretch in ready:
            alike.setdefault(-(-len(stretch) // RULE_CHUNK), []).append(stretch)
        yield from alike.values()
        waiting = [s for s in waiting if s.begins is not None and s.begins in coming]


def _call(stretches: Sequence[Stretch]) -> Call:
    offsets = np.arange(max(len(s) for s in stretches))
    valid = offsets < np.array([[len(s)] for s in stretches])
    index = np.where(valid, np.array([[s.first] for s in stretches]) + offsets, 0)
    return Call(tuple(stretches), index, valid)


def _window(plan: DeltaPlan, reach: int) -> Window:
    """`reach`: inputs that a token sees besides its own."""
    seen: dict[Point | None, NDArray[np.int64]] = {None: np.zeros(reach, dtype=np.int64)}
    first = 1
    for point in plan.carried:
        seen[point] = first + np.arange(reach)
        first += reach
    arranged, length = [], 0
    place = np.zeros(plan.tokens, dtype=np.int64)
    kept = []
    for stretch in plan.stretches:
        run = np.concatenate([seen[stretch.begins], first + np.arange(stretch.first, stretch.last)])
        place[stretch.first : stretch.last] = length + reach + np.arange(len(stretch))
        arranged.append(run)
        length += len(run)
        if stretch.ends is not None:
            seen[stretch.ends] = run[len(run) - reach :]
            kept.append(seen[stretch.ends])
    return Window(
        np.concatenate(arranged),
        place,
        np.array(kept, dtype=np.int64).reshape(len(kept), reach),
    )
