"""Runs of language models that were never trained: a directory with a config, a tokenizer and random weights."""

import json
from pathlib import Path

import torch
import yaml

from dlzoo import zoo
from dlzoo.data.tokenizers import BYTES, BytePairs, Characters, Tokenizer

AT = {byte: token for token, byte in enumerate(BYTES)}
TEXT = "abcdefghij .\né"
MODELS = {
    "gpt": {
        "_target_": "dlzoo.models.language.gpt.gpt_char",
        "context": 16,
    },
    "llama": {"_target_": "dlzoo.models.language.llama.llama_tiny", "context": 16},
    "lstm": {"_target_": "dlzoo.models.sequence.char_rnn.char_lstm", "width": 16},
    "gru": {"_target_": "dlzoo.models.sequence.char_rnn.char_gru", "width": 16, "layers": 1},
    "rnn": {"_target_": "dlzoo.models.sequence.char_rnn.char_rnn", "width": 16},
}


def text_run(folder: Path, model: str, tokenizer: Tokenizer | None = None, spread: float = 0.3) -> Path:
    """Makes one.

    Args:
        folder: its directory.
        model: one of MODELS.
        tokenizer: characters, if none is given.
        spread: of the random weights; so large that what is written depends on what was read.
    """
    tokenizer = tokenizer or Characters(TEXT)
    node = MODELS[model] | {"vocab_size": tokenizer.vocab_size}
    torch.manual_seed(1)
    net = zoo.build(node)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.normal_(mean=1.0 if "norm" in name else 0.0, std=3.0 if "positions" in name else spread)
            if name in ("tokens.weight", "norm.bias", "head.bias"):  # no token shall win whatever was read
                parameter.copy_(torch.nn.functional.normalize(parameter, dim=-1) if parameter.ndim == 2 else 0 * parameter)
    (folder / "checkpoints").mkdir(parents=True)
    tokenizer.save(folder / "tokenizer.json")
    torch.save(
        {"state_dict": {f"net.{name}": value for name, value in net.state_dict().items()}}, folder / "checkpoints/best.ckpt"
    )
    data = {"_target_": "dlzoo.datamodules.text_files.TextFiles", "root": str(folder / "nothing"), "context": 16}
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": f"text_{model}", "model": node, "data": data}))
    how = {"kind": "text", "context": 16, "vocab_size": tokenizer.vocab_size, "tokenizer": "tokenizer.json"}
    summary = {"name": f"text_{model}", "model": model, "answers": "text", "classes": [], "preprocess": how, "edition": ""}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def merged() -> BytePairs:
    """A few merges, one of them of the two halves of é."""
    return BytePairs([(AT[0xC3], AT[0xA9]), (AT[97], AT[98]), (257, AT[99])])
