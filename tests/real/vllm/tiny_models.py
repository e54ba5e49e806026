"""Models small enough to be made on the spot: a Llama, and a PaliGemma whose images are as large as
real ones. Their weights are random, so that each prompt and each image has an answer of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = 1000
IMAGE_SIDE = 896  # 9.2 MiB as float32: more than 8 MiB, from which on the arena keeps tensors
PATCH_SIDE = 56
CHAT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def save_llama(folder: Path) -> Path:
    """A Llama of two layers, with its tokenizer; the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=WORDS, max_position_embeddings=2048, **_text())
    _save(LlamaForCausalLM(config), folder)
    tokenizer().save_pretrained(folder)
    return folder


def save_paligemma(folder: Path) -> Path:
    """A PaliGemma of two layers for each half, with its processor; the folder."""
    import torch
    from transformers import (
        GemmaConfig,
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
        SiglipVisionConfig,
    )

    torch.manual_seed(2)
    words = tokenizer()
    images = SiglipImageProcessor(size={"height": IMAGE_SIDE, "width": IMAGE_SIDE})
    images.image_seq_length = (IMAGE_SIDE // PATCH_SIDE) ** 2
    processor = PaliGemmaProcessor(images, words, chat_template=CHAT)  # adds tokens
    processor.save_pretrained(folder)
    vision = SiglipVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE_SIDE,
        patch_size=PATCH_SIDE,
        vision_use_head=False,
    )
    text = GemmaConfig(vocab_size=len(words), max_position_embeddings=2048, **_text())
    image = words.convert_tokens_to_ids("<image>")
    config = PaliGemmaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image,
        projection_dim=text.hidden_size,
        hidden_size=text.hidden_size,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    _save(PaliGemmaForConditionalGeneration(config), folder, _as_vllm_names)
    return folder


def _text() -> dict[str, Any]:
    return {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _save(model: Any, folder: Path, rename: Any = None) -> None:
    """With random weights large enough that answers differ by the input."""
    import torch

    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() > 1:
                weights.normal_(0.0, 0.02 if "embed" in name else 0.15)
    state = model.state_dict()
    if rename is not None:
        state = {rename(name): value for name, value in state.items()}
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    kept = {name: value.contiguous().clone() for name, value in state.items()}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def _as_vllm_names(name: str) -> str:
    """vLLM reads the names of older checkpoints."""
    name = name.removeprefix("model.")
    name = name.replace("language_model.", "language_model.model.")
    if name.startswith("vision_tower.") and "vision_model." not in name:
        name = name.replace("vision_tower.", "vision_tower.vision_model.")
    return name.replace("language_model.model.model.", "language_model.model.")


def tokenizer() -> Any:
    """Of WORDS words, "w0" and so on, with spaces between them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<eos>", "<unk>", "\n", "<image>"]
    words = special + [f"w{number}" for number in range(WORDS - len(special))]
    numbers = {word: number for number, word in enumerate(words)}
    raw = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        chat_template=CHAT,
    )
