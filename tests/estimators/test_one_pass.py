"""The one pass against its slow twin: a plain full forward of the model per prefix."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clips import rolled_clip
from topreward.config import load_protocol
from topreward.errors import MemoryLimitError, PromptError
from topreward.estimators.topreward import TOPReward
from topreward.estimators.topreward.call import Call
from topreward.estimators.topreward.sight import _different
from topreward.qwen.attention import Kernel
from topreward.qwen.model import QwenVL
from topreward.types import Clip, Curve, Episode

ONE = "pick up the cup"
THREE = ["pick up the cup", "pick up the red block", "Open it."]


SETUPS = [
    "dense sdpa grouped",
    "dense sdpa folded",
    "dense eager dense",
    "moe sdpa dense",
    "moe sdpa folded",
    "moe eager grouped",
]


@pytest.fixture(autouse=True)
def _cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens are worth several groups too: else no test would cut."""
    monkeypatch.setattr("topreward.qwen.attention.folded_groups", lambda tokens: 3)


@pytest.fixture(scope="module", params=SETUPS)
def estimator(request: pytest.FixtureRequest) -> TOPReward:
    kind, attention, kernel = request.param.split()
    folder: Path = request.getfixturevalue(f"{kind}_folder")
    return TOPReward.from_pretrained(folder, device="cpu", attn_implementation=attention, branch_kernel=kernel)


def assert_same(estimator: TOPReward, clip: Clip, instruction: Any, protocol: Any) -> None:
    fast = estimator.score(clip, instruction, protocol=protocol)
    slow = estimator.score(clip, instruction, protocol=protocol, one_pass=False)
    fast, slow = ([fast], [slow]) if isinstance(fast, Curve) else (fast, slow)
    assert len(fast) == len(slow)
    for f, s in zip(fast, slow, strict=True):
        assert np.ptp(f.values) > 0.1 or len(f) == 1, "a constant curve would hide a mistake"
        np.testing.assert_allclose(f.log_prob_true, s.log_prob_true, atol=1e-4, rtol=0)
        np.testing.assert_allclose(f.log_prob_false, s.log_prob_false, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore:transformers")
@pytest.mark.parametrize("chat_template", [False, True])
@pytest.mark.parametrize("protocol", ["paper", "dense"])
@pytest.mark.parametrize("instruction", [ONE, THREE], ids=["one", "three"])
def test_equals_the_slow_twin(estimator: TOPReward, protocol: str, chat_template: bool, instruction: Any) -> None:
    # 7 sampled frames: odd and even prefixes, and an odd end
    clip = rolled_clip(count=100, height=64, width=96)
    assert_same(estimator, clip, instruction, load_protocol(protocol, num_prefixes=5, chat_template=chat_template))


@pytest.mark.filterwarnings("ignore:transformers")
@pytest.mark.parametrize("protocol", ["paper", "dense"])
def test_every_prefix_of_a_clip(estimator: TOPReward, protocol: str) -> None:
    clip = rolled_clip(count=9, height=48, width=64, fps=3.0)
    assert_same(estimator, clip, ONE, load_protocol(protocol, num_prefixes=0, sampling_fps=3.0))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("protocol", ["paper", "dense"])
@pytest.mark.parametrize("kernel", ["grouped", "folded"])
def test_the_shortest_clips(
    tiny: TOPReward, protocol: str, count: int, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny.model, "kernel", kernel)
    assert_same(tiny, rolled_clip(count=count, height=40, width=70, fps=2.0), THREE, protocol)


def test_equal_instructions_get_equal_values(tiny: TOPReward) -> None:
    clip = rolled_clip(count=60)
    alone = tiny.score(clip, ONE)
    together = tiny.score(clip, [ONE, ONE, "drop it"])
    for curve in together[:2]:
        np.testing.assert_allclose(curve.values, alone.values, atol=1e-4)


@pytest.mark.parametrize("kernel", ["grouped", "dense", "folded"])
def test_chunks_change_nothing(tiny: TOPReward, monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> None:
    monkeypatch.setattr(tiny.model, "kernel", kernel)
    clip = rolled_clip(count=200, height=64, width=64)
    protocol = load_protocol("paper", num_prefixes=0)
    whole = tiny.score(clip, THREE, protocol=protocol)
    passes = []
    decode = QwenVL.decode
    monkeypatch.setattr(
        QwenVL, "decode", lambda self, tokens, *a, **k: (passes.append(len(tokens)), decode(self, tokens, *a, **k))[1]
    )
    monkeypatch.setattr("topreward.qwen.memory.CHUNK_TOKENS", 1)
    monkeypatch.setattr("topreward.qwen.memory.MIN_CHUNK", 1)
    monkeypatch.setattr("topreward.qwen.memory.MASK_ELEMENTS", 2**18)
    monkeypatch.setattr("topreward.qwen.model.VISION_CHUNK", 300)
    monkeypatch.setattr("topreward.estimators.topreward.sight.FRAMES_AT_ONCE", 4)
    chunked = tiny.score(clip, THREE, protocol=protocol)
    assert len(passes) > 3, "the branch pass was not cut"
    for a, b in zip(whole, chunked, strict=True):
        np.testing.assert_allclose(a.values, b.values, atol=1e-4, rtol=0)


def test_one_prefill_and_one_branch_pass(tiny: TOPReward, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    decode = QwenVL.decode
    monkeypatch.setattr(
        QwenVL, "decode", lambda self, tokens, *a, **k: (passes.append(len(tokens)), decode(self, tokens, *a, **k))[1]
    )
    curves = tiny.score(rolled_clip(), THREE, protocol="paper")
    assert passes == [curves[0].provenance["tokens"]["trunk"], curves[0].provenance["tokens"]["branch"]]


def test_prefixes_with_the_same_frames_share_their_value(tiny: TOPReward) -> None:
    curve = tiny.score(rolled_clip(count=33, fps=15.0), ONE, protocol=load_protocol("paper", num_prefixes=0))
    assert len(curve) == 33
    assert len(set(curve.values.tolist())) == 5


def test_pixels_are_decoded_only_where_sampled(tiny: TOPReward) -> None:
    asked: list[int] = []
    source = rolled_clip(count=100)

    def decode(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        asked.extend(indices.tolist())
        return source.frames(indices)

    clip = Clip(source.pts_seconds, source.fps, source.height, source.width, decode)
    tiny.score(clip, ONE, protocol="paper")
    assert asked == list(range(0, 91, 15))


def test_too_long_a_video_is_refused_with_the_longest_that_fits(dense_folder: Path) -> None:
    estimator = TOPReward.from_pretrained(dense_folder, device="cpu", memory_limit=200 * 2**20)
    estimator.score(rolled_clip(count=40), ONE)
    clip = rolled_clip(count=2, height=64, width=64)
    long = Clip(np.arange(20_000) / 2.0, 2.0, 256, 256, clip.decode, source="long.mp4")
    with pytest.raises(
        MemoryLimitError, match=r"long.mp4: 20000 sampled frames need .* longest that fits is \d\d+ frames"
    ):
        estimator.score(long, ONE)


@pytest.mark.parametrize("text", ["pick <|video_pad|> up", "<|im_end|>", "say <|endoftext|>"])
def test_special_tokens_in_an_instruction_are_refused(tiny: TOPReward, text: str) -> None:
    with pytest.raises(PromptError, match="special token"):
        tiny.score(rolled_clip(count=5), text)
    with pytest.raises(PromptError, match="empty"):
        tiny.score(rolled_clip(count=5), "  ")


def test_answers_of_several_tokens_are_refused(tiny: TOPReward, tmp_path: Path) -> None:
    wording = load_protocol("paper").wording.model_dump() | {"answer_true": " quite so"}
    with pytest.raises(PromptError, match="' quite so' is 9 tokens"):
        tiny.score(rolled_clip(count=5), ONE, protocol=load_protocol("paper", wording=wording))


def test_score_many_carries_the_episode(tiny: TOPReward) -> None:
    episodes = [Episode(f"e{i}", ONE, lambda i=i: rolled_clip(seed=i, count=20)) for i in range(2)]
    curves = list(tiny.score_many(episodes, protocol="paper"))
    assert [c.episode_id for c in curves] == ["e0", "e1"]
    np.testing.assert_array_equal(
        curves[1].values, tiny.score(rolled_clip(seed=1, count=20), ONE, protocol="paper").values
    )
    assert tiny.score(rolled_clip(count=5), []) == []


def test_beyond_384_frames_parity_is_not_claimed(tiny: TOPReward) -> None:
    clip = rolled_clip(count=1, height=32, width=32)
    long = Clip(np.arange(386) / 2.0, 2.0, 32, 32, lambda indices: np.repeat(clip.frames([0]), len(indices), axis=0))
    protocol = load_protocol("paper", num_prefixes=1)  # one frame is shown: cheap, and still so long a video
    assert "parity" in tiny.score(long, ONE, protocol=protocol).notes[0]
    assert tiny.score(rolled_clip(count=60), ONE, protocol=protocol).notes == ()


def test_provenance_says_how(tiny: TOPReward) -> None:
    made = tiny.score(rolled_clip(count=20), ONE, protocol="paper").provenance
    assert made["kernels"] == {"vision": "topreward blocks", "trunk": "sdpa", "branch": "topreward grouped"}
    assert made["protocol"]["name"] == "paper"
    assert made["protocol"]["wording"]["question"].startswith("The above video shows")
    assert made["software"]["transformers"]
    assert made["dtype"] == "float32"
    assert made["layout_version"] == 1


def test_frames_are_copied_only_where_some_repeat(tiny: TOPReward) -> None:
    clip = rolled_clip(count=4, height=64, width=64, fps=2.0)
    call = Call(tiny.model, clip, [ONE], load_protocol("dense"))
    frames, blocks = clip.frames(np.arange(4)), np.arange(4).reshape(2, 2)
    shown, places = _different(call, frames, blocks)
    assert np.shares_memory(shown.numpy(), frames)
    assert places.tolist() == [0, 1]
    still = frames[[0, 0, 1, 1, 0, 0, 1, 1, 1, 1]]
    shown, places = _different(call, still, np.arange(10).reshape(5, 2))
    np.testing.assert_array_equal(shown.permute(0, 2, 3, 1).numpy(), still[:8])
    assert places.tolist() == [0, 1, 2, 3, 3]


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_logits_are_summed_in_fp32(device: str, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(64, 20_000, bias=False, device=device, dtype=dtype)  # more than one slice of the head
    hidden = torch.randn(5, 64, generator=random).to(device, dtype) * 4
    holder: Any = SimpleNamespace(model=SimpleNamespace(lm_head=head))
    with torch.inference_mode():
        logits = QwenVL._logits(holder, hidden)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), hidden.double() @ head.weight.double().T, atol=1e-4, rtol=0)


@pytest.mark.parametrize("grid", [(1, 1), (2, 3)])
def test_all_blocks_at_once_are_the_stock_tower(tiny: TOPReward, grid: tuple[int, int]) -> None:
    model = tiny.model
    patches = torch.randn(5 * 4 * grid[0] * grid[1], 1536, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = model.see(patches, grid)
        # After ours: blocks that still were one batch would see each other here.
        stock = model.visual(patches, grid_thw=torch.tensor([[5, 2 * grid[0], 2 * grid[1]]]))
    embeds, deepstack = stock if isinstance(stock, tuple) else (stock.pooler_output, stock.deepstack_features)
    torch.testing.assert_close(ours.embeds, embeds, atol=1e-5, rtol=1e-5)
    for a, b in zip(ours.deepstack, deepstack, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert model.stock_kernels["vision"] == "sdpa", "the stock kernel is back"
