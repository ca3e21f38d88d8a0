"""A Qwen3-VL of two million parameters, made from nothing, in the files of a hub checkpoint.

In: nothing but a seed. Out: a tokenizer, a config, untrained weights, and a folder that `load_checkpoint`
reads like any other, under transformers 4.57 and 5.x. Knows nothing of episodes and of training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from topreward.config import load_protocol
from topreward.demo.world import TASKS
from topreward.estimators.gvl.protocol import load_gvl_protocol
from topreward.qwen.loading import Checkpoint
from topreward.qwen.model import QwenVL

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# How Qwen cuts text before it merges bytes: words keep the space before them, digits stand alone.
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LARGEST_VOCABULARY = 1400

TEXT: dict[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "dtype": "bfloat16",
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.06,  # about 1 / sqrt(hidden_size): the library's 0.02 is meant for wider models
    "intermediate_size": 384,
    "max_position_embeddings": 32768,
    "model_type": "qwen3_vl_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [6, 5, 5], "rope_type": "default"},
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "use_cache": True,
}
VISION: dict[str, Any] = {
    "deepstack_visual_indexes": [1],
    "depth": 4,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 128,
    "in_channels": 3,
    "initializer_range": 0.06,
    "intermediate_size": 384,
    "model_type": "qwen3_vl",
    "num_heads": 4,
    "num_position_embeddings": 64,
    "out_hidden_size": 128,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
PIXELS: dict[str, Any] = {
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{ message.content }}"
    "{%- else %}{%- for part in message.content %}"
    "{%- if part.type == 'image' or 'image' in part %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part.type == 'video' or 'video' in part %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{%- elif 'text' in part %}{{ part.text }}{%- endif %}{%- endfor %}{%- endif %}"
    "{{ '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)


def make_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Byte-level BPE over the words of `texts`: each becomes one token; any other text falls apart into bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LARGEST_VOCABULARY,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def demo_texts() -> list[str]:
    """What the tokenizer learns its words from: every wording of every task, the prompts and the answers."""
    wordings = [text for task in TASKS.values() for text in (task.instruction, *task.paraphrases)]
    topreward, gvl = load_protocol("demo").wording, load_gvl_protocol("gvl-demo").wording
    # The closed empty thought is for another family: a tokenizer that had learnt it would number all else anew.
    prompts = [*topreward.model_dump(exclude={"closed_thinking"}).values(), *gvl.model_dump().values()]
    answers = [" True", " False", "True", "False"]
    spoken = [f" {text}. {text.capitalize()} {text} {text.capitalize()}" for text in wordings]
    marks = ["<1.5 seconds>", "Frame 1: Task Completion Percentages:50%\nFrame 2: Task Completion Percentages:100%"]
    return [*prompts * 3, *spoken * 2, *marks * 20, *answers * 50]


def make_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """config.json in the form of transformers 4.57, which 5.x reads as well."""
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    size = -(-tokenizer.get_vocab_size() // 8) * 8
    ends = {
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "dtype": "bfloat16",
        "image_token_id": ids["<|image_pad|>"],
        "model_type": "qwen3_vl",
        "text_config": dict(sorted({**TEXT, **ends, "vocab_size": size}.items())),
        "tie_word_embeddings": True,
        "transformers_version": "4.57.1",
        "video_token_id": ids["<|video_pad|>"],
        "vision_config": VISION,
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
    }


def make_model(tokenizer: Tokenizer, seed: int, device: str = "cpu") -> QwenVL:
    """Untrained weights in float32, all of them trainable, the same on every device."""
    config = make_config(tokenizer)
    built = transformers.Qwen3VLConfig.from_dict(json.loads(json.dumps(config)))
    torch.manual_seed(seed)
    model = transformers.Qwen3VLForConditionalGeneration(built).float().eval().to(device)
    # The dense kernel: it is the one that gradients flow through.
    return QwenVL(Checkpoint(model, tokenizer, {"model": "demo", "model_type": "qwen3_vl"}), kernel="dense")


def save(model: QwenVL, folder: Path, *, template_texts: Sequence[str] = ()) -> None:
    """Write a folder as the hub has it: weights in bfloat16, config, tokenizer, processor settings."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in model.model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embeddings
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # the library writes it for its owner alone
    tokenizer = model.tokenizer
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    config = make_config(tokenizer)
    text = config["text_config"]
    _write(folder / "config.json", config)
    _write(
        folder / "generation_config.json",
        {
            "bos_token_id": text["bos_token_id"],
            "do_sample": False,
            "eos_token_id": [text["eos_token_id"], text["pad_token_id"]],
            "pad_token_id": text["pad_token_id"],
        },
    )
    _write(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    _write(
        folder / "preprocessor_config.json",
        {
            **PIXELS,
            "size": {"longest_edge": 16777216, "shortest_edge": 1024},
            "image_processor_type": "Qwen2VLImageProcessorFast",
            "processor_class": "Qwen3VLProcessor",
        },
    )
    _write(
        folder / "video_preprocessor_config.json",
        {
            **PIXELS,
            "size": {"longest_edge": 25165824, "shortest_edge": 4096},
            "video_processor_type": "Qwen3VLVideoProcessor",
            "processor_class": "Qwen3VLProcessor",
        },
    )
    _write(folder / "tokenizer_config.json", _tokenizer_config(tokenizer))


def _tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(token)): {"content": token, **flags} for token in SPECIAL_TOKENS
        },
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _write(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
