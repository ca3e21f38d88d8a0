"""The shipped demo checkpoint means something: it reads the table, not the clock. And how it is taught is sound."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from topreward import voc
from topreward.demo import checkpoint_folder
from topreward.demo.descent import Descent, Rates, is_inner_matrix
from topreward.demo.draw import SIZE, Painter
from topreward.demo.episodes import demo_clip, demo_episodes
from topreward.demo.footage import SIDE, Footage, film, room
from topreward.demo.lessons import Teacher, side_by_side, target, timestamps
from topreward.demo.seeing import equal_blocks
from topreward.demo.tiny import demo_texts, make_model, make_tokenizer
from topreward.demo.training import Course, answers, draw_lessons, pack
from topreward.demo.world import TASKS, make_rollout
from topreward.errors import ConfigError
from topreward.estimators.gvl import GVL
from topreward.estimators.topreward import TOPReward
from topreward.jobs.controls import backwards, frozen
from topreward.qwen import pixels
from topreward.qwen.layout import lay_out
from topreward.qwen.model import QwenVL
from topreward.types import Clip, Curve


@pytest.fixture(scope="module")
def model() -> TOPReward:
    return TOPReward.from_pretrained("demo", device="cpu")


def values(curve: Curve) -> np.ndarray:
    return np.exp(curve.values)


# -- what is shipped -----------------------------------------------------------------------------------------------


def test_the_checkpoint_is_laid_out_like_a_hub_checkpoint_and_is_small() -> None:
    files = {file.name: file.stat().st_size for file in checkpoint_folder().iterdir()}
    assert set(files) == {
        "chat_template.json",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "video_preprocessor_config.json",
        "vocab.json",
    }
    assert sum(files.values()) <= 6e6
    text = json.loads((checkpoint_folder() / "config.json").read_text())["text_config"]
    assert "rope_scaling" in text
    assert "rope_parameters" not in text, "transformers 4.57 reads the older form only, 5.x reads both"


def test_the_tokenizer_is_made_again_from_the_prompts_alone() -> None:
    made = json.loads(make_tokenizer(demo_texts()).to_str())
    assert made == json.loads((checkpoint_folder() / "tokenizer.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("answer", [" True", " False", "True", "False"])
def test_answers_are_one_token(model: TOPReward, answer: str) -> None:
    assert len(model.model.encode(answer)) == 1


@pytest.mark.parametrize("text", ["close the drawer", "grab 12 zebras, at once!\n\n  ü 抽屉 🙂", "\t~\\"])
def test_any_text_is_encoded_without_loss(model: TOPReward, text: str) -> None:
    assert model.model.decode_text(model.model.encode(text)) == text


def test_provenance_names_no_folder(model: TOPReward) -> None:
    assert model.model.provenance["model"] == "demo"


# -- what it means -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_a_success_rises(model: TOPReward, task: str) -> None:
    episodes = demo_episodes(8, seed=71, kinds=["success"], tasks=[task])
    curves = [model.score(e.clip(), e.instruction, protocol="demo") for e in episodes]
    assert np.mean([values(c)[0] for c in curves]) < 0.1
    assert np.mean([values(c)[-1] for c in curves]) > 0.75
    assert np.mean([voc(c.values) for c in curves]) > 0.85


def test_a_frozen_video_does_not_rise(model: TOPReward) -> None:
    changes = []
    for episode in demo_episodes(6, seed=72, kinds=["success"]):
        clip = episode.clip()
        still = replace(clip, decode=lambda i, clip=clip: clip.frames([clip.num_frames // 2]).repeat(len(i), axis=0))
        curve = values(model.score(still, episode.instruction, protocol="demo"))
        changes.append(curve[-1] - curve[0])
    assert np.mean(np.abs(changes)) < 0.05


def test_undoing_falls_and_stopping_half_way_stays_there(model: TOPReward) -> None:
    for episode in demo_episodes(4, seed=73, kinds=["undoes_itself"]):
        curve = values(model.score(episode.clip(), episode.instruction, protocol="demo"))
        assert curve[-1] < curve.max() - 0.2
    for episode in demo_episodes(4, seed=74, kinds=["stops_halfway"]):
        curve = values(model.score(episode.clip(), episode.instruction, protocol="demo"))
        assert episode.progress is not None
        assert curve[-1] == pytest.approx(episode.progress[-1], abs=0.25)


def test_a_wrong_instruction_stays_low(model: TOPReward) -> None:
    # Lifting, pouring and stacking are at nothing unless the arm works on them, whatever else goes on.
    rollout = make_rollout(75, task="close_drawer", kind="success")
    wrong = [name for name in ("lift_block", "pour_jug") if rollout.progress[name].max() == 0]
    texts = [rollout.instruction, *(TASKS[name].instruction for name in wrong)]
    own, *others = model.score(demo_clip(rollout), texts, protocol="demo")
    assert values(own)[-1] > 0.8
    assert max(values(other).max() for other in others) < 0.25


def test_a_paraphrase_says_the_same(model: TOPReward) -> None:
    rollout = make_rollout(76, task="push_can", kind="success")
    texts = [rollout.instruction, *TASKS["push_can"].paraphrases]
    curves = model.score(demo_clip(rollout), texts, protocol="demo")
    assert np.ptp([values(c) for c in curves], axis=0).max() < 0.1


def test_one_pass_is_a_plain_forward_per_prefix(model: TOPReward) -> None:
    episode = demo_episodes(1, seed=77)[0]
    fast, slow = (
        model.score(episode.clip(), episode.instruction, protocol="demo", one_pass=one) for one in (True, False)
    )
    np.testing.assert_allclose(fast.values, slow.values, atol=2e-4)


def test_gvl_answers_parse_and_tell_forth_from_back(model: TOPReward) -> None:
    gvl = GVL.sharing(model)
    episodes = demo_episodes(12, seed=78, kinds=["success"])

    def answered(change: Callable[[Clip], Clip]) -> list[np.ndarray]:
        changed = [replace(e, load=lambda e=e: change(e.clip()), progress=None) for e in episodes]
        return [curve.values for curve in gvl.score_many(changed, protocol="gvl-demo")]

    real, still, turned = (answered(change) for change in (lambda clip: clip, frozen, backwards))
    assert not np.isnan(real + still + turned).any()
    assert np.nanmean([voc(v) for v in real]) > 0.6
    assert np.nanmean([voc(v) for v in turned]) < -0.6
    assert np.mean([np.ptp(v) for v in still]) < 5


# -- how it is taught ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def untrained() -> QwenVL:
    model = make_model(make_tokenizer(demo_texts()), seed=3)
    model.model.requires_grad_(False)
    return model


@pytest.fixture(scope="module")
def films() -> list[Footage]:
    return [film(4, index) for index in range(3)]


def test_a_packed_batch_equals_the_trunk_pass_and_the_branch_pass(untrained: QwenVL, films: list[Footage]) -> None:
    rng = np.random.default_rng(0)
    lessons, want = [], []
    for footage, counts in zip(films, ([1, 2, 5], [4], [3, 6]), strict=True):
        layout = lay_out(
            untrained.encode,
            untrained.vision_tokens,
            opening="<|im_start|>user\n",
            seconds=timestamps(rng, max(counts)),
            grid=(SIDE // 32, SIDE // 32),
            counts=counts,
            questions=[["lift the block:", "wipe:"]] * len(counts),
        )
        trunk = np.arange(layout.trunk_blocks * 2).reshape(-1, 2)
        odd = np.repeat(np.array(layout.odd_counts, dtype=np.int64)[:, None] - 1, 2, axis=1)
        blocks = footage.frames[np.concatenate([trunk, odd])]
        lessons.append(side_by_side(layout, blocks, np.zeros((len(counts), 2), dtype=np.float32)))
        features = untrained.see(pixels.to_patches(levels(blocks)), layout.grid)
        cut = layout.trunk_blocks * layout.grid[0] * layout.grid[1]
        hidden = untrained.branch(layout, untrained.prefill(layout, features[:cut]), features[cut:])
        want.append(untrained.model.lm_head(hidden).flatten(0, 1))
    got = answers(untrained, pack(lessons, torch.cat([levels(lesson.blocks) for lesson in lessons])))
    torch.testing.assert_close(got, torch.cat(want), atol=1e-4, rtol=0)


def levels(blocks: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(blocks).permute(0, 1, 4, 2, 3).float().flatten(0, 1)


def test_all_blocks_at_once_look_the_same_as_one_after_the_other(untrained: QwenVL, films: list[Footage]) -> None:
    patches = pixels.to_patches(levels(films[0].frames[[[0, 1], [2, 2], [3, 1]]]))
    plain = untrained.see(patches, (3, 3))
    with equal_blocks(untrained):
        at_once = untrained.see(patches, (3, 3))
    torch.testing.assert_close(at_once.embeds, plain.embeds, atol=1e-4, rtol=0)
    torch.testing.assert_close(at_once.deepstack[0], plain.deepstack[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(untrained.see(patches, (3, 3)).embeds, plain.embeds, atol=0, rtol=0)


def test_lessons_tell_the_truth_at_every_prefix(untrained: QwenVL, films: list[Footage]) -> None:
    teacher, rng = Teacher(untrained), np.random.default_rng(1)
    for footage in films * 10:
        lesson = teacher.progress_lesson(footage, rng)
        assert lesson.visual.sum() == len(lesson.blocks) * (SIDE // 32) ** 2
        taught = target(footage.progress, footage.near)
        assert all(np.isclose(taught, truth).any() for truth in lesson.truth)
        assert (np.abs(lesson.truth - 0.5) <= 0.49).all()


def test_gvl_lessons_spell_an_answer_that_parses(untrained: QwenVL, films: list[Footage]) -> None:
    from topreward.estimators.gvl.answers import parse

    teacher, rng = Teacher(untrained), np.random.default_rng(2)
    for footage in films:
        lesson = teacher.gvl_lesson(footage, rng)
        text = untrained.decode_text(lesson.answer.tolist())
        count = len(lesson.blocks) - 1
        read = parse(text, count)
        assert isinstance(read, np.ndarray), text
        assert lesson.answer[-1] == untrained.stop_tokens[0]
        fives = 5 * np.round(20 * footage.progress)
        assert any(np.isin(read, fives[:, task]).all() for task in range(len(TASKS)))
        numbers = untrained.decode_text(lesson.answer[lesson.told].tolist())
        assert numbers == "".join(f"{i}{p:.0f}%\n" for i, p in enumerate(read, 1))[:-1]
        assert lesson.answer[:-1].tolist() == list(untrained.encode(text.removesuffix("<|im_end|>")))


def test_gvl_lessons_grow_from_one_frame_to_all(untrained: QwenVL, films: list[Footage]) -> None:
    course = Course(steps=100, gvl_from=40)
    most = [course.most_frames(step) for step in range(100)]
    assert most[:40] == [0] * 40
    assert most[40:] == sorted(most[40:])
    assert set(most[40:]) == set(range(1, 6))
    teacher, rng = Teacher(untrained), np.random.default_rng(3)
    assert {len(teacher.gvl_lesson(films[0], rng, 1).blocks) for _ in range(5)} == {2}
    short = Course(steps=2, lessons=(2, 1), gvl_from=1, gvl_images=2)
    first, second = draw_lessons(teacher, films, short)
    assert [len(batch.ids) for batch in first] == [2]
    assert [len(batch.ids) for batch in second] == [1, 6]


def test_inner_matrices_go_one_way_and_the_rest_another(untrained: QwenVL) -> None:
    inner = {name for name, weight in untrained.model.named_parameters() if is_inner_matrix(name, weight)}
    assert all("norm" not in name and "embed" not in name and "lm_head" not in name for name in inner)
    for part in ("attn.qkv", "linear_fc1", "q_proj", "down_proj", "merger"):
        assert any(part in name for name in inner)


def test_descent_goes_down_and_ends_at_rest() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    named = {f"layers.{name}": weight for name, weight in net.named_parameters()}
    inputs = torch.randn(64, 4)
    wanted = inputs[:, :1] - inputs[:, 1:2]
    descent = Descent([(named, Rates(5e-2, 5e-2))], steps=200, warm_up=0.1)
    losses = []
    for _ in range(200):
        loss = (net(inputs) - wanted).square().mean()
        losses.append(loss.item())
        before = [weight.detach().clone() for weight in named.values()]
        descent.step(loss)
    moved = max(float((weight.detach() - old).abs().max()) for weight, old in zip(named.values(), before, strict=True))
    assert losses[-1] < losses[0] / 5
    assert moved < 1e-4


def test_without_muon_training_says_what_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ConfigError, match=r"torch 2\.9"):
        Descent([], steps=1, warm_up=0.1)


def test_footage_is_the_same_every_time() -> None:
    first, second = film(5, 1), film(5, 1)
    np.testing.assert_array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.progress, second.progress)


def test_a_glimpse_is_a_piece_of_the_same_film() -> None:
    whole, piece = film(5, 1), film(5, 1, longest=3)
    places = [i for i in range(len(whole.frames) - 2) if np.array_equal(whole.frames[i : i + 3], piece.frames)]
    assert len(places) == 1
    np.testing.assert_array_equal(piece.progress, whole.progress[places[0] : places[0] + 3])


def test_films_of_one_room_share_the_table_and_not_the_things() -> None:
    here = room(5, 0)
    one, other = (here.around(make_rollout(seed).scene) for seed in (1, 2))
    assert (one.camera, one.texture, one.wall) == (other.camera, other.texture, other.wall)
    assert one.places != other.places
    rollout = replace(make_rollout(1), scene=one)
    drawn = Painter(rollout, SIZE, here.supersample).frames([0, 5])
    np.testing.assert_array_equal(Painter(rollout, SIZE, here.supersample, here.table).frames([0, 5]), drawn)


def test_clip_of_the_demo_has_the_size_that_was_taught() -> None:
    clip: Clip = demo_clip(make_rollout(1))
    assert pixels.aspect_size(clip.height, clip.width, 9216) == (SIDE, SIDE)
