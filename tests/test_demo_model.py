"""The shipped demo checkpoint means something: it reads the table, not the clock. And how it is taught is sound."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from topreward import voc
from topreward.demo import checkpoint_folder
from topreward.demo.episodes import demo_clip, demo_episodes
from topreward.demo.footage import SIDE, Footage, film
from topreward.demo.lessons import Teacher, side_by_side, target, timestamps
from topreward.demo.seeing import equal_blocks
from topreward.demo.tiny import demo_texts, make_model, make_tokenizer
from topreward.demo.training import answers, pack
from topreward.demo.world import TASKS, make_rollout
from topreward.estimators.gvl import GVL
from topreward.estimators.topreward import TOPReward
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
    # The median: in about one episode of ten the jug or the can is misjudged by a third of its way.
    assert np.median([values(c)[-1] for c in curves]) > 0.8
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


def test_gvl_answers_parse(model: TOPReward) -> None:
    curves = list(GVL.sharing(model).score_many(demo_episodes(6, seed=78), protocol="gvl-demo"))
    assert sum(not np.isnan(c.values).any() for c in curves) >= 5


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
    from topreward.gvl_answers import parse

    teacher, rng = Teacher(untrained), np.random.default_rng(2)
    for footage in films:
        lesson = teacher.gvl_lesson(footage, rng)
        text = untrained.decode_text(lesson.answer.tolist())
        count = len(lesson.blocks) - 1
        read = parse(text, count)
        assert isinstance(read, np.ndarray), text
        assert lesson.answer[-1] == untrained.stop_tokens[0]
        assert any(np.isin(read, np.round(100 * footage.progress[:, task])).all() for task in range(len(TASKS)))


def test_footage_is_the_same_every_time() -> None:
    first, second = film(5, 1), film(5, 1)
    np.testing.assert_array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.progress, second.progress)


def test_clip_of_the_demo_has_the_size_that_was_taught() -> None:
    clip: Clip = demo_clip(make_rollout(1))
    assert pixels.aspect_size(clip.height, clip.width, 9216) == (SIDE, SIDE)
