"""Runs of language models that were never trained: a directory with a config, a tokenizer and random weights."""

import json
from pathlib import Path

import torch
import yaml
from omegaconf import OmegaConf

import dlzoo
from dlzoo import zoo
from dlzoo.data.tokenizers import BYTES, BytePairs, Characters, Tokenizer

AT = {byte: token for token, byte in enumerate(BYTES)}
TEXT = "abcdefghij .\né"
MODELS = {
    "gpt": ["model=gpt_char", "model.context=16"],
    "lstm": ["model=char_lstm", "model.width=16"],
    "gru": ["model=char_gru", "model.width=16", "model.layers=1"],
    "rnn": ["model=char_rnn", "model.width=16"],
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
    words = ["data=text_files", "task=language_modeling", *MODELS[model], f"data.tokenizer={tokenizer.kind}"]
    words += [
        f"data.vocab_size={tokenizer.vocab_size}",
        "data.context=16",
        "data.test_fraction=0.5",
        f"data.root={folder}/text",
    ]
    config = OmegaConf.to_container(dlzoo.compose(*words, f"run_dir={folder}", f"name=text_{model}"), resolve=True)
    torch.manual_seed(1)
    net = zoo.build(config["model"])
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.normal_(mean=1.0 if "norm" in name else 0.0, std=3.0 if "positions" in name else spread)
            if name in ("tokens.weight", "norm.bias", "head.bias"):  # no token shall win whatever was read
                parameter.copy_(torch.nn.functional.normalize(parameter, dim=-1) if parameter.ndim == 2 else 0 * parameter)
    (folder / "checkpoints").mkdir(parents=True)
    tokenizer.save(folder / "tokenizer.json")
    weights = {f"net.{name}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": weights}, folder / "checkpoints" / "best.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    how = {"kind": "text", "context": 16, "vocab_size": tokenizer.vocab_size, "tokenizer": "tokenizer.json"}
    summary = {"name": f"text_{model}", "model": model, "answers": "text", "classes": [], "preprocess": how, "edition": ""}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def merged() -> BytePairs:
    """A few merges, one of them of the two halves of é."""
    return BytePairs([(AT[0xC3], AT[0xA9]), (AT[97], AT[98]), (257, AT[99])])
