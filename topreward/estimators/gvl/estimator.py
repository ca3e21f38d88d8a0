"""GVL, the generative baseline: shuffled frames in, a completion percentage for each out, in words.

In go a Clip and an instruction; out comes a Curve in percent. The frames are shown as images in an order drawn
by a seed, after the episode's first frame as an anchor; the model writes a percentage for each, and they are put
back in order of time. An answer that cannot be read whole makes a Curve of NaN that says why: a failure is a
result, never dropped.

Source: Ma et al., Vision Language Models are In-Context Value Learners, arXiv 2411.04549. What is done exactly:
docs/gvl.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from topreward.errors import ConfigError
from topreward.estimators.gvl.answers import Failure, answered, parse
from topreward.estimators.gvl.protocol import GVLProtocol, load_gvl_protocol
from topreward.estimators.gvl.showing import Question, Showing, Sights
from topreward.estimators.shared.options import LoadOptions
from topreward.estimators.topreward.estimator import TOPReward
from topreward.provenance import software
from topreward.qwen.batch import ROW_ATTENTION, Answer, Finished, answer_all, answer_plainly
from topreward.qwen.image_layout import IMAGE_LAYOUT_VERSION
from topreward.qwen.loading import warn_if_slow
from topreward.qwen.memory import BatchLoad, available_bytes, estimate_batch_bytes, require_batch
from topreward.qwen.model import QwenVL
from topreward.types import Clip, Curve, Episode

GVLProtocolLike = str | PathLike[str] | GVLProtocol
Asked = tuple[Question, Tensor]
"""A question and its pixels as shown."""


class GVL:
    """Asks a local Qwen3-VL for percentages. Made by `GVL.from_pretrained`, or by `GVL.sharing` a loaded model."""

    def __init__(self, model: QwenVL, *, memory_limit: int | None = None) -> None:
        """`memory_limit`: bytes a call may take beyond the weights; by default what the device has free.

        Raises ModelError for a model whose answers cannot be decoded here.
        """
        model.refuse_to_write("GVL's percentages", leave_out="--estimators topreward,log_odds,debiased")
        self.model = model
        self.memory_limit = memory_limit
        self._prepared: Showing | None = None

    @classmethod
    def from_pretrained(cls, name: str | PathLike[str], **options: Unpack[LoadOptions]) -> GVL:
        """Load a checkpoint; all as `TOPReward.from_pretrained` has it. Raises ModelError."""
        return cls.sharing(TOPReward.from_pretrained(name, **options))

    @classmethod
    def sharing(cls, estimator: TOPReward) -> GVL:
        """On the model that a TOPReward has loaded: no second copy."""
        return cls(estimator.model, memory_limit=estimator.memory_limit)

    @torch.inference_mode()
    def prepare(self, protocol: GVLProtocolLike, examples: Sequence[Episode]) -> Showing:
        """Decode and see in-context episodes, before the first call that shows them; they are kept for the next ones.

        Raises ConfigError for too many, DatasetError for one without honest percentages, VideoError.
        """
        wanted = load_gvl_protocol(protocol)
        if self._prepared is None or not self._prepared.shows(wanted, examples):
            self._prepared = Showing(self.model, wanted, examples)
        return self._prepared

    def score(
        self,
        clip: Clip,
        instruction: str,
        *,
        protocol: GVLProtocolLike = "gvl",
        examples: Sequence[Episode] = (),
        one_cache: bool = True,
    ) -> Curve:
        """The percentages of a clip's frames, in order of time.

        `protocol`: a name (`gvl`, `gvl-paper`), a yaml file or a GVLProtocol. `examples`: up to 5 in-context
        episodes, which must not contain this one. `one_cache=False`: the slow twin, transformers' own `generate`.
        Returns a Curve in percent whose prefixes end with the frames shown; all NaN, with a note, where the
        answer is a failure. `provenance["failure"]` then holds its kind and reason, `provenance["answer"]` the
        answer's text always. The order of frames is drawn from the seed and `clip.source`.
        Raises PromptError, VideoError, ConfigError, DatasetError, MemoryLimitError.
        """
        call = _Call(self, protocol, examples)
        return call.curves([call.ask(clip, instruction, clip.source)], one_cache=one_cache)[0]

    def score_many(
        self,
        episodes: Iterable[Episode],
        *,
        protocol: GVLProtocolLike = "gvl",
        batch_size: int = 8,
        examples: Sequence[Episode] = (),
        one_cache: bool = True,
    ) -> Iterator[Curve]:
        """Score episodes, `batch_size` at a time with one cache; Curves come in the episodes' order.

        As `score`, but the order of an episode's frames is drawn from the seed and its id, whatever else is in
        its batch, and an episode that is among the examples is a ConfigError. The first error ends the
        iteration, after the Curves of all episodes before it; go on with the episodes after it.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, want at least 1")
        call = _Call(self, protocol, examples)
        remaining, failure = iter(episodes), None
        while failure is None:
            batch: list[Asked] = []
            try:
                for episode in islice(remaining, batch_size):
                    batch.append(call.ask_about(episode))
            except Exception as error:  # raised again below, when the episodes before it are done
                failure = error
            if not batch and failure is None:
                return
            yield from call.curves(batch, one_cache=one_cache) if batch else ()
        raise failure


class _Call:
    """A protocol and its in-context episodes, for one or many episodes."""

    def __init__(self, estimator: GVL, protocol: GVLProtocolLike, examples: Sequence[Episode]) -> None:
        self.model = estimator.model
        self.memory_limit = estimator.memory_limit
        self.showing = estimator.prepare(protocol, examples)
        self.protocol = self.showing.protocol

    def ask(self, clip: Clip, instruction: str, key: str, *, episode_id: str | None = None) -> Asked:
        """Lay out a clip, see that it fits, and decode it."""
        question = self.showing.question(clip, instruction, key, episode_id=episode_id)
        self._check_memory([question])
        return question, self.showing.shown(question)

    def ask_about(self, episode: Episode) -> Asked:
        """A dataset's episode. Raises ConfigError where the examples would give it away."""
        if any(episode.id == example.id for example in self.showing.examples):
            raise ConfigError(f"episode {episode.id} is among the in-context episodes, which hold its answers")
        return self.ask(episode.clip(), episode.instruction, episode.id, episode_id=episode.id)

    @torch.inference_mode()
    def curves(self, batch: list[Asked], *, one_cache: bool) -> list[Curve]:
        """One Curve per question, in their order."""
        questions = [question for question, _ in batch]
        finished = [self._finished(question) for question in questions]
        budget = self.protocol.max_new_tokens
        if one_cache:
            self._check_memory(questions)
            answers = answer_all(
                self.model,
                [question.prompt for question in questions],
                Sights(self.showing, [shown for _, shown in batch]).of,
                max_new_tokens=budget,
                finished=finished,
            )
        else:
            answers = [
                answer_plainly(
                    self.model, question.prompt, self.showing.patches(shown), max_new_tokens=budget, finished=done
                )
                for (question, shown), done in zip(batch, finished, strict=True)
            ]
        return [self._curve(q, answer, one_cache) for q, answer in zip(questions, answers, strict=True)]

    def _finished(self, question: Question) -> Finished:
        """Whether an answer's tokens so far answer every frame."""

        def finished(tokens: list[int]) -> bool:
            newest = self.model.decode_text(tokens[-1:])
            # Only this settles an answer; reading all of it after every token would cost more than the token.
            if "\n" not in newest:
                return False
            return answered(self.model.decode_text(tokens), question.indices.size, first=self.showing.first)

        return finished

    def _check_memory(self, questions: list[Question]) -> None:
        limit = self.memory_limit if self.memory_limit is not None else available_bytes(self.model.device)
        told = sum(e.features.embeds.shape[0] for e in self.showing.examples)
        own = max(q.prompt.visual_tokens for q in questions) - told
        longest = max(len(q.prompt.tokens) for q in questions)
        widest = max(height * width for q in questions for height, width in q.prompt.grids)

        def needed(rows: int) -> int:
            load = BatchLoad(
                rows=rows,
                prompt_tokens=longest,
                new_tokens=self.protocol.max_new_tokens,
                visual_tokens=2 * (own + told),  # what is remembered, and a prompt's copy of it
                patches_at_once=4 * own,
                pixels=max(3 * (1 + q.indices.size) * q.size[0] * q.size[1] for q in questions),
            )
            return estimate_batch_bytes(self.model.model, load, block_patches=4 * widest)

        count = f"{len(questions)} prompts of up to" if len(questions) > 1 else "a prompt of"
        what = f"{questions[0].clip.source}: {count} {longest} tokens and their answers"
        require_batch(needed, len(questions), limit, what=what)

    def _curve(self, question: Question, answer: Answer, one_cache: bool) -> Curve:
        clip, count = question.clip, question.indices.size
        values = np.full(count, np.nan)
        parsed = parse(answer.text, count, first=self.showing.first)
        failure = None
        if (
            not isinstance(parsed, Failure)
            and answer.stopped == "budget"
            and not answered(answer.text, count, first=self.showing.first)
        ):
            parsed = Failure("unreadable", "the line of a percentage has not ended")
        if isinstance(parsed, Failure):
            cut = f"; the answer was cut off at {len(answer.tokens)} tokens" if answer.stopped == "budget" else ""
            failure = {"kind": parsed.kind, "reason": parsed.reason + cut}
        else:
            values[question.order] = parsed
        notes = list(clip.notes)
        if failure:
            notes.append(f"no percentages, {failure['kind']}: {failure['reason']}")
        if slow := warn_if_slow(self.model.provenance):
            notes.append(slow)
        return Curve(
            instruction=question.instruction,
            prefix_lengths=question.indices + 1,
            times=clip.pts_seconds[question.indices],
            values=values,
            unit="percent",
            num_frames=clip.num_frames,
            episode_id=question.episode_id,
            notes=tuple(notes),
            provenance=self._provenance(question, answer, failure, one_cache),
        )

    def _provenance(
        self, question: Question, answer: Answer, failure: dict[str, str] | None, one_cache: bool
    ) -> dict[str, Any]:
        kernels = {k: v for k, v in self.model.kernels.items() if k != "branch"}
        return {
            "estimator": "gvl",
            **self.model.provenance,
            "protocol": self.protocol.model_dump(),
            "layout_version": IMAGE_LAYOUT_VERSION,
            "one_cache": one_cache,
            "kernels": kernels | ({"answer": ROW_ATTENTION} if one_cache else {}),
            "video": {
                "source": question.clip.source,
                "fps": question.clip.fps,
                "height": question.clip.height,
                "width": question.clip.width,
                "resized": list(question.size),
                "sampled_indices": question.indices.tolist(),
            },
            "order": question.order.tolist(),
            "examples": [e.id for e in self.showing.examples],
            "answer": answer.text,
            "stopped": answer.stopped,
            "failure": failure,
            "tokens": {"prompt": len(question.prompt.tokens), "answer": len(answer.tokens)},
            "software": software(),
        }
