"""GVL: the batch against transformers' own generate, the way from frames to a Curve and back, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import topreward as tr
from checkpoints import make_checkpoint
from clips import rolled_clip, rolled_frames
from topreward.config import load_protocol
from topreward.errors import ConfigError, DatasetError, MemoryLimitError, PromptError, VideoError
from topreward.estimators.gvl import GVL
from topreward.estimators.gvl import estimator as gvl
from topreward.estimators.gvl import prompts as gvl_prompts
from topreward.estimators.gvl.protocol import GVLProtocol, load_gvl_protocol
from topreward.estimators.gvl.showing import Showing, Sights, image_contents, still_patches
from topreward.estimators.topreward import TOPReward
from topreward.jobs import controls
from topreward.jobs.scorers import GVLScorer
from topreward.qwen.batch import Answer, RowCache, Stopped, answer_all, answer_plainly, image_tokens
from topreward.qwen.image_layout import ImagePrompt, lay_out_images
from topreward.qwen.memory import cache_bytes
from topreward.qwen.model import Features
from topreward.types import Clip, Curve, Episode

# 3x2 visual tokens an image and short answers, so that a tiny model is done in no time.
SMALL = load_gvl_protocol("gvl", num_frames=4, resize="keep_aspect", frame_pixels=64 * 96, max_new_tokens=24)
TASKS = ["pick up the cup", "drop it", "open the left drawer and put the red block into it", "fold", "push"]


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> GVL:
    """A tiny checkpoint whose answers go on until the limit: its head is not tied to its embeddings."""
    folder = make_checkpoint(tmp_path_factory.mktemp("talker"), tie_word_embeddings=False)
    return GVL.from_pretrained(folder, device="cpu")


def episodes(count: int = 5) -> list[Episode]:
    """Episodes of different tasks, lengths and frame shapes, so of different prompts."""

    def loader(i: int) -> Callable[[], Clip]:
        return lambda: rolled_clip(seed=i, count=3 + 9 * i, height=64, width=96 if i % 2 else 64)

    return [Episode(id=f"episode {i}", instruction=TASKS[i], load=loader(i)) for i in range(count)]


def example(i: int = 7, **known: Any) -> Episode:
    return Episode(id=f"example {i}", instruction="pour", load=lambda: rolled_clip(seed=i, count=30), **known)


def answering(
    monkeypatch: pytest.MonkeyPatch, text: Callable[[ImagePrompt], str], stopped: Stopped = "answered"
) -> list[ImagePrompt]:
    """The model runs as ever; only the text that goes to the parser is replaced. Returns the prompts seen."""
    seen: list[ImagePrompt] = []

    def replaced(model: Any, prompts: list[ImagePrompt], *arguments: Any, **options: Any) -> list[Answer]:
        seen.extend(prompts)
        answers = answer_all(model, prompts, *arguments, **options)
        return [replace(a, text=text(p), stopped=stopped) for a, p in zip(answers, prompts, strict=True)]

    monkeypatch.setattr(gvl, "answer_all", replaced)
    return seen


# -- the batch and its slow twin


def make_prompts(estimator: GVL) -> tuple[list[ImagePrompt], list[torch.Tensor]]:
    """Prompts of different lengths, numbers of images and sizes, with their patches."""
    shapes = [[(1, 2)], [(2, 3), (2, 3), (1, 1)], [(2, 2)] * 5, [(3, 1)], [(1, 1), (4, 3)]]
    prompts, patches = [], []
    for i, grids in enumerate(shapes):
        texts = ["<|im_start|>user\nlook: ", *["then "] * (len(grids) - 1), f"{TASKS[i]}?<|im_end|>\n"]
        prompts.append(lay_out_images(estimator.model.encode, image_tokens(estimator.model), texts=texts, grids=grids))
        frames = [rolled_frames(10 * i + j, 1, 32 * h, 32 * w, 0) for j, (h, w) in enumerate(grids)]
        patches.append(torch.cat([still_patches(torch.from_numpy(f).permute(0, 3, 1, 2)) for f in frames]))
    return prompts, patches


def see(estimator: GVL, prompt: ImagePrompt, patches: torch.Tensor) -> Any:
    """One image after the other, each with its own grid."""
    parts, start = [], 0
    for h, w in prompt.grids:
        parts.append(estimator.model.see(patches[start : start + 4 * h * w], (h, w)))
        start += 4 * h * w
    return type(parts[0]).join(parts)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["talker", "tied", "moe"])
@torch.inference_mode()
def test_batch_is_one_by_one_is_the_stock_generate(kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "talker":
        estimator: GVL = request.getfixturevalue("talker")
    else:
        folder: Path = request.getfixturevalue("moe_folder" if kind == "moe" else "dense_folder")
        estimator = GVL.from_pretrained(folder, device="cpu")
    prompts, patches = make_prompts(estimator)
    # Rows that end at different steps, so that the cache is packed while others go on.
    wanted = [9, 24, 3, 1, 14]
    finished = [lambda tokens, n=n: len(tokens) >= n for n in wanted]

    def batch(rows: list[int]) -> list[Answer]:
        return answer_all(
            estimator.model,
            [prompts[i] for i in rows],
            lambda row: see(estimator, prompts[rows[row]], patches[rows[row]]),
            max_new_tokens=18,
            finished=[finished[i] for i in rows],
        )

    together = batch([0, 1, 2, 3, 4])
    alone = [batch([i])[0] for i in range(5)]
    stock = [
        answer_plainly(estimator.model, prompts[i], patches[i], max_new_tokens=18, finished=finished[i])
        for i in range(5)
    ]
    assert together == alone == stock
    assert batch([3, 1]) == [together[3], together[1]]
    if kind == "talker":
        assert [len(a.tokens) for a in together] == [9, 18, 3, 1, 14]
        assert [a.stopped for a in together] == ["answered", "budget", "answered", "answered", "answered"]
        assert len({a.tokens for a in together}) == 5, "equal answers would hide a mistake"


def test_an_answer_ends_with_its_end_token(dense_folder: Path) -> None:
    estimator = GVL.from_pretrained(dense_folder, device="cpu")
    curves = list(estimator.score_many(episodes(), protocol=SMALL))
    ended = [c for c in curves if c.provenance["stopped"] == "end"]
    assert ended, "this checkpoint ends some answers early"
    assert all(c.provenance["tokens"]["answer"] < SMALL.max_new_tokens for c in ended)


@pytest.mark.parametrize("examples", [[], [example(7), example(8)]], ids=["zero-shot", "two-shot"])
def test_no_episode_depends_on_its_batch(talker: GVL, examples: list[Episode]) -> None:
    def answers(**options: Any) -> list[tuple[Any, ...]]:
        curves = talker.score_many(episodes(), protocol=SMALL, examples=examples, **options)
        return [(c.episode_id, c.provenance["answer"], c.provenance["order"], c.provenance["tokens"]) for c in curves]

    together = answers(batch_size=8)
    assert [a[0] for a in together] == [e.id for e in episodes()]
    assert all(a[1] for a in together)
    assert together == answers(batch_size=1) == answers(batch_size=2) == answers(one_cache=False)


def test_the_cache_takes_what_was_said() -> None:
    class Text:
        num_key_value_heads, head_dim, num_hidden_layers = 2, 16, 4

    class Model:
        dtype = torch.float32

        class config:
            text_config = Text

    cache = RowCache([5, 9], 7)
    filled = torch.zeros(1, 2, 5, 16)

    class Filled:
        layers = [type("Layer", (), {"keys": filled, "values": filled})] * 4

    cache.prefilled(0, Filled)  # type: ignore[arg-type]
    assert sum(buffer.nbytes for buffer in (*cache.keys, *cache.values)) == cache_bytes(Model, 2 * (9 + 7))


# -- from frames to a Curve


def test_percentages_come_back_in_order_of_time(talker: GVL, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = rolled_clip(count=31, height=64, width=96, fps=10.0)
    order = talker.score(clip, "fold", protocol=SMALL).provenance["order"]
    assert order != sorted(order), "an unshuffled order would hide a mistake"
    # Frame i is shown at place i - 1 and stands at order[i - 1] in time; say so, last frame first.
    lines = [f"Frame {i + 1}: Task Completion Percentages:{10 * place + 0.5}%" for i, place in enumerate(order)]
    answering(monkeypatch, lambda _: "Initial robot scene: 0%\n" + "\n".join(reversed(lines)))
    curve = talker.score(clip, "fold", protocol=SMALL)
    assert curve.values.tolist() == [0.5, 10.5, 20.5, 30.5]
    assert curve.unit == "percent"
    assert curve.prefix_lengths.tolist() == [1, 11, 21, 31]
    np.testing.assert_allclose(curve.times, [0, 1, 2, 3])
    assert tr.voc(curve.values) == 1
    assert curve.provenance["failure"] is None
    assert curve.notes == ()


def test_a_failure_is_a_curve_of_nan_that_says_why(talker: GVL, tmp_path: Path) -> None:
    curve = talker.score(rolled_clip(count=31, height=64, width=96), "fold", protocol=SMALL)
    assert np.isnan(curve.values).all()
    assert len(curve) == 4
    failure = curve.provenance["failure"]
    assert failure["kind"] == "no_answers"
    assert failure["reason"].endswith("the answer was cut off at 24 tokens")
    assert curve.notes == (f"no percentages, no_answers: {failure['reason']}",)
    assert curve.provenance["answer"]
    assert np.isnan(tr.voc(curve.values))
    curve.save(tmp_path / "curve.json")
    again = Curve.load(tmp_path / "curve.json")
    assert again.to_dict() == curve.to_dict()


def test_one_wrong_number_fails_the_whole_answer(talker: GVL, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda _: "Frame 1: 10%\nFrame 2: 20%\nFrame 3: 300%\nFrame 4: 40%")
    curve = talker.score(rolled_clip(count=31, height=64, width=96), "fold", protocol=SMALL)
    assert np.isnan(curve.values).all()
    assert curve.provenance["failure"] == {"kind": "out_of_range", "reason": "frame 3: 300 % out of range"}


def test_a_number_that_the_limit_cut_off_is_not_read(talker: GVL, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Frame 1: 10%\nFrame 2: 20%\nFrame 3: 30%\nFrame 4: 8"  # of "85%"
    clip = rolled_clip(count=31, height=64, width=96)
    answering(monkeypatch, lambda _: text, stopped="budget")
    failure = talker.score(clip, "fold", protocol=SMALL).provenance["failure"]
    assert failure["kind"] == "unreadable"
    assert failure["reason"] == "the line of a percentage has not ended; the answer was cut off at 24 tokens"
    answering(monkeypatch, lambda _: text + "5%\nI", stopped="budget")
    assert talker.score(clip, "fold", protocol=SMALL).provenance["failure"] is None
    answering(monkeypatch, lambda _: text, stopped="end")
    assert sorted(talker.score(clip, "fold", protocol=SMALL).values) == [8, 10, 20, 30]


def test_frames_are_numbered_on_after_the_examples(talker: GVL, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = answering(monkeypatch, lambda _: "\n".join(f"Frame {i}: {i}%" for i in range(9, 13)))
    curve = next(talker.score_many(episodes(5)[4:], protocol=SMALL, examples=[example(7), example(8)]))
    assert curve.provenance["failure"] is None
    assert sorted(curve.values) == [9, 10, 11, 12]
    assert curve.provenance["examples"] == ["example 7", "example 8"]
    told = prompts[0].text.split("Frame 8: ")[1].split("Frame 9: ")[0]
    assert " Task Completion Percentage: " in told
    assert "Now, for the task of push, output" in told
    assert len(prompts[0].grids) == 1 + 4 + 4 + 4


def test_an_answer_stops_at_its_last_percentage(talker: GVL) -> None:
    question = Showing(talker.model, SMALL, []).question(rolled_clip(count=31), "fold", "key")
    finished = gvl._Call(talker, SMALL, [])._finished(question)
    text = "".join(f"Frame {i}: Task Completion Percentages: {10 * i}%\n" for i in (3, 1, 4, 2))
    tokens = talker.model.encode(text + "I hope this helps!")
    first = next(n for n in range(1, len(tokens) + 1) if finished(tokens[:n]))
    assert talker.model.decode_text(tokens[:first]).strip() == text.strip()


def counted(monkeypatch: pytest.MonkeyPatch, estimator: GVL) -> list[int]:
    """How many images each call of the vision tower takes."""
    seen: list[int] = []
    real = estimator.model.see

    def see(patches: torch.Tensor, grid: tuple[int, int]) -> Features:
        seen.append(len(patches) // (4 * grid[0] * grid[1]))
        return real(patches, grid)

    monkeypatch.setattr(estimator.model, "see", see)
    return seen


def test_controls_cost_the_vision_tower_what_they_show_anew(talker: GVL, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = counted(monkeypatch, talker)
    scorer = GVLScorer(talker, SMALL)
    clip = rolled_clip(count=31, height=64, width=96)
    both = ["fold", "drop the big red cup"]
    real, other = scorer.score(clip, both, episode_id="a")
    assert seen == [4], "the anchor is one of the frames, and the other instruction shows the same ones"
    assert real.provenance["answer"] != other.provenance["answer"]
    videos = [clip, controls.frozen(clip), controls.backwards(clip)]
    together = scorer.score_together(list(zip(videos, [both, ["fold"], ["fold"]], strict=True)), episode_id="a")
    assert seen == [4, 4], "neither the frozen nor the reversed video shows a frame that the real one does not"
    assert [len(curves) for curves in together] == [2, 1, 1]
    monkeypatch.undo()
    asked = [("fold", videos[0]), (both[1], videos[0]), ("fold", videos[1]), ("fold", videos[2])]
    slow = [
        next(talker.score_many([Episode("a", text, lambda v=v: v)], protocol=SMALL, one_cache=False))
        for text, v in asked
    ]
    told = [curve.provenance["answer"] for curves in together for curve in curves]
    assert told == [curve.provenance["answer"] for curve in slow]
    assert told[:2] == [real.provenance["answer"], other.provenance["answer"]]


def test_examples_are_decoded_and_seen_once(talker: GVL, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    def load() -> Clip:
        opened.append(1)
        return rolled_clip(seed=7, count=30)

    shown = Episode("example", "pour", load)
    scorer = GVLScorer(talker, SMALL, (shown,))
    clip = rolled_clip(count=31)
    [first] = scorer.score(clip, ["pour"], episode_id="a")
    seen = counted(monkeypatch, talker)
    [again] = scorer.score(clip, ["pour"], episode_id="a")
    assert (opened, len(seen)) == ([1], 1)
    assert first.provenance["examples"] == ["example"]
    assert first.provenance["answer"] == again.provenance["answer"]
    # another protocol, or other episodes, are seen anew
    assert talker.prepare(SMALL.model_copy(update={"seed": 9}), [shown]).protocol.seed == 9
    assert [e.id for e in talker.prepare(SMALL, [example(7)]).examples] == ["example 7"]
    assert [e.id for e in talker.prepare(SMALL, [shown]).examples] == ["example"]
    assert talker.prepare(SMALL, []).examples == []
    assert opened == [1, 1, 1]
    with pytest.raises(ConfigError, match="6 in-context episodes, want at most 5"):
        talker.prepare(SMALL, [example(i) for i in range(6)])


@pytest.mark.parametrize("examples", [[], [example(7)]], ids=["zero-shot", "one-shot"])
@torch.inference_mode()
def test_what_is_remembered_is_what_would_be_seen(talker: GVL, examples: list[Episode]) -> None:
    showing = Showing(talker.model, SMALL, examples)
    clip, square = rolled_clip(count=31, height=64, width=96), rolled_clip(seed=1, count=9, height=64, width=64)
    clips = [clip, controls.frozen(clip), square, controls.backwards(clip), clip]
    shown = [showing.shown(showing.question(one, "fold", str(i))) for i, one in enumerate(clips)]
    sights = Sights(showing, shown)
    for row, images in enumerate(shown):
        got, h, w = sights.of(row), images.shape[2] // 32, images.shape[3] // 32
        own = talker.model.see(still_patches(images), (h, w))
        parts = [own[slice(0, h * w)], *(e.features for e in showing.examples), own[slice(h * w, None)]]
        want = Features.join(parts)
        for a, b in zip([got.embeds, *got.deepstack], [want.embeds, *want.deepstack], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert not sights.seen, "nothing is kept after its last question"


def test_images_are_the_same_only_with_the_same_pixels_and_size() -> None:
    images = torch.zeros(3, 3, 32, 64, dtype=torch.uint8)
    images[2, 0, 0, 0] = 1
    first, second, third = image_contents(images)
    assert first == second != third
    assert image_contents(images[:1].reshape(1, 3, 64, 32)) != [first]


def test_the_anchor_is_the_episodes_first_frame_and_stills_stand_twice(talker: GVL) -> None:
    frames = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 64, 96, 3), dtype=np.uint8)
    showing = Showing(talker.model, SMALL, [])
    question = showing.question(Clip.from_array(frames, 10.0), "fold", "key")
    shown = showing.shown(question)
    assert shown[:, 0, 0, 0].tolist() == [0, *question.indices[question.order].tolist()]
    patches = still_patches(shown).view(5, -1, 3, 2, 16, 16)
    assert torch.equal(patches[:, :, :, 0], patches[:, :, :, 1])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_clips_show_what_they_have(talker: GVL, count: int) -> None:
    curve = talker.score(rolled_clip(count=count, height=64, width=96), "fold", protocol=SMALL)
    assert curve.prefix_lengths.tolist() == list(range(1, count + 1))


def test_sharing_takes_no_second_copy(tiny: TOPReward) -> None:
    assert GVL.sharing(tiny).model is tiny.model


# -- which frames, in which order, with which words


def test_frames_are_spread_over_the_whole_clip() -> None:
    assert gvl_prompts.even_frames(100, 15).tolist()[:3] == [0, 7, 14]
    assert gvl_prompts.even_frames(100, 15)[-1] == 99
    assert gvl_prompts.even_frames(4, 15).tolist() == [0, 1, 2, 3]
    assert gvl_prompts.even_frames(9, 1).tolist() == [8]


def test_the_order_depends_on_seed_and_id_alone() -> None:
    # Pinned: a run must be repeatable with another numpy and on another machine.
    assert gvl_prompts.shuffled(0, "episode 0", 8).tolist() == PINNED
    assert gvl_prompts.shuffled(1, "episode 0", 8).tolist() != PINNED
    assert gvl_prompts.shuffled(0, "episode 1", 8).tolist() != PINNED
    places = np.array([gvl_prompts.shuffled(0, str(i), 5)[0] for i in range(2000)])
    assert np.bincount(places).min() > 300  # every frame comes first as often as any other


PINNED = [5, 3, 6, 2, 7, 0, 4, 1]


def test_the_prompt_word_for_word() -> None:
    wording = load_gvl_protocol("gvl-paper").wording
    texts = gvl_prompts.texts(wording, "fold {i} {p}", [[0, 100]], 2)
    assert texts == [
        "<|im_start|>user\nYou are an expert roboticist tasked to predict task completion percentages for frames of a "
        "robot for the task of fold {i} {p}. The task completion percentages are between 0 and 100, where 100 "
        "corresponds to full task completion. We provide several examples of the robot performing the task at various "
        "stages and their corresponding task completion percentages. Note that these frames are in random order, so "
        "please pay attention to the individual frames when reasoning about task completion percentage.\n"
        "Initial robot scene: ",
        "\nIn the initial robot scene, the task completion percentage is 0.\nFrame 1: ",
        " Task Completion Percentage: 0%\nFrame 2: ",
        " Task Completion Percentage: 100%\nNow, for the task of fold {i} {p}, output the task completion percentage "
        "for the following frames that are presented in random order. For each frame, format your response as follow: "
        "Frame {i}: Frame Description: {}, Task Completion Percentages:{}%\nFrame 3: ",
        "\nFrame 4: ",
        "\n<|im_end|>\n<|im_start|>assistant\n",
    ]
    plain = load_gvl_protocol("gvl").wording
    assert "Frame {i}: Task Completion Percentages:{}%" in plain.request
    assert plain.model_dump(exclude={"request"}) == wording.model_dump(exclude={"request"})


def test_examples_tell_true_progress_or_time() -> None:
    clip = Clip(np.array([0.0, 1.0, 4.0]), 1.0, 8, 8, lambda i: np.zeros((i.size, 8, 8, 3), np.uint8))
    indices = np.array([0, 1, 2])
    assert gvl_prompts.example_percentages(example(), clip, indices) == [0, 25, 100]
    known = example(progress=np.array([0.0, 0.004, 0.5]), success=False)
    assert gvl_prompts.example_percentages(known, clip, indices) == [0, 0, 50]
    for episode, problem in [
        (example(success=False), "failed and its progress is not known"),
        (example(progress=np.array([0.0, 1.0])), r"shape \(2,\), the clip has 3 frames"),
        (example(progress=np.array([0.0, 1.0, 1.5])), "leaves 0 … 1"),
        (example(progress=np.array([0.0, np.nan, 1.0])), "leaves 0 … 1"),
    ]:
        with pytest.raises(DatasetError, match=problem):
            gvl_prompts.example_percentages(episode, clip, indices)


# -- what is refused


def test_protocols() -> None:
    default, paper = load_gvl_protocol(), load_gvl_protocol("gvl-paper")
    assert (default.num_frames, paper.num_frames) == (15, 30)
    assert load_gvl_protocol(default) is default
    assert load_gvl_protocol(default, seed=3) == load_gvl_protocol("gvl", seed=3)
    assert load_gvl_protocol("gvl", wording=paper.wording).wording == paper.wording
    assert isinstance(load_gvl_protocol("gvl", wording="gvl-rerun"), GVLProtocol)


@pytest.mark.parametrize(
    ("name", "overrides", "problem"),
    [
        ("paper", {}, "paper: not a GVL protocol .* there are gvl, "),
        ("gvl-papr", {}, "no GVL protocol named 'gvl-papr' .did you mean 'gvl-paper'"),
        ("gvl", {"num_frame": 3}, "unknown key 'num_frame' .did you mean 'num_frames'"),
        ("gvl", {"num_frames": 0}, "num_frames is 0"),
        ("gvl", {"wording": "topreward"}, "wording topreward: key 'task' is missing"),
        ("gvl", {"wording": load_gvl_protocol().wording.model_dump() | {"frame_label": "Frame: "}}, "contain {i}"),
    ],
)
def test_bad_protocols(name: str, overrides: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_gvl_protocol(name, **overrides)


def test_topreward_does_not_take_a_gvl_protocol() -> None:
    with pytest.raises(ConfigError, match="gvl: is a protocol of the estimator 'gvl', not of TOPReward"):
        load_protocol("gvl")


def test_bad_examples(talker: GVL) -> None:
    clip = rolled_clip(count=5)
    with pytest.raises(ConfigError, match="6 in-context episodes, want at most 5"):
        talker.score(clip, "fold", protocol=SMALL, examples=[example(i) for i in range(6)])
    with pytest.raises(ConfigError, match="given twice: example 7"):
        talker.score(clip, "fold", protocol=SMALL, examples=[example(7), example(7)])
    with pytest.raises(ConfigError, match="example 7 is among the in-context episodes"):
        list(talker.score_many([example(7)], protocol=SMALL, examples=[example(7)]))


def test_bad_instructions(talker: GVL) -> None:
    with pytest.raises(PromptError, match="special token"):
        talker.score(rolled_clip(count=5), "fold <|image_pad|>", protocol=SMALL)
    with pytest.raises(PromptError, match="empty"):
        talker.score(rolled_clip(count=5), " ", protocol=SMALL)


def test_an_error_comes_after_the_curves_before_it(talker: GVL) -> None:
    def broken() -> Clip:
        raise VideoError("gone.mp4: no such file")

    good = episodes(4)
    listed = [*good[:2], Episode(id="broken", instruction="fold", load=broken), *good[2:]]
    for size in (1, 2, 3, 8):
        done: list[str | None] = []
        curves: Iterator[Curve] = talker.score_many(listed, protocol=SMALL, batch_size=size)
        with pytest.raises(VideoError, match=r"gone\.mp4"):
            done.extend(curve.episode_id for curve in curves)
        # list.extend keeps what came before the error
        assert done == [e.id for e in good[:2]]
    with pytest.raises(ConfigError, match="batch_size is 0"):
        next(talker.score_many(good, batch_size=0))


def test_what_does_not_fit_is_refused_before_a_frame_is_decoded(talker: GVL) -> None:
    def decode(indices: Any) -> Any:
        raise AssertionError("decoded")

    small = GVL(talker.model, memory_limit=10_000)
    clip = Clip(np.arange(30) / 30, 30.0, 64, 96, decode, source="cup.mp4")
    with pytest.raises(MemoryLimitError, match=r"cup\.mp4: a prompt of .* need about .* not even one fits"):
        small.score(clip, "fold", protocol=SMALL)


def test_a_batch_that_does_not_fit_names_one_that_does(talker: GVL) -> None:
    for limit in range(10, 400, 5):
        some = GVL(talker.model, memory_limit=limit * 100_000)
        try:
            list(some.score_many(episodes(4), protocol=SMALL, batch_size=4))
        except MemoryLimitError as error:
            if "a batch of 2 fits" in str(error):
                assert len(list(some.score_many(episodes(4), protocol=SMALL, batch_size=2))) == 4
                return
    pytest.fail("no limit let two prompts through, but not four")
