"""Published weights of GPT-2: OpenAI's, as transformers keeps them.

Their linear maps are stored input by output, for they were convolutions of length 1, and the files hold the causal mask. Files
saved by transformers today have a prefix, and the table of tokens a second time; both are read, in every size. Only the small
one is among the sources: of the others no hash was at hand that more than one place states.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dlzoo.pretrained import Source
from dlzoo.pretrained.renaming import converter, unwrap

__all__ = ["SOURCES", "convert"]

SOURCES = {
    "gpt2": Source(
        "https://huggingface.co/openai-community/gpt2/resolve/main/pytorch_model.bin",
        "7c5d3f4b8b76583b422fcb9189ad6c89d5d97a094541ce8932dce3ecabde1421",
        "MIT",
        "WikiText-103, zero-shot: perplexity 37.50",
        "Radford et al. 2019, table 3",
        mean=(),  # tokens have none
        std=(),
        size=548_118_077,
    )
}

_rename = converter(
    (
        (r"^transformer\.", ""),
        (r"^wte\.", "tokens."),
        (r"^wpe\.", "positions."),
        (r"^h\.(\d+)\.", r"blocks.\1."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.attn\.c_attn\.", ".attention.qkv."),
        (r"\.attn\.c_proj\.", ".attention.proj."),
        (r"\.mlp\.c_fc\.", ".mlp.0."),
        (r"\.mlp\.c_proj\.", ".mlp.2."),
        (r"^ln_f\.", "norm."),
    )
)
_fixed = re.compile(r"\.attn\.(bias|masked_bias)$|^lm_head\.weight$")
_stored_across = re.compile(r"\.(qkv|proj|mlp\.[02])\.weight$")


def convert(name: str, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A published state dict under our names; the tensors are shared, not copied.

    Raises:
        CheckpointError: there are no tensors in it, or some that this family does not have.
    """
    found = unwrap(name, state_dict)
    converted = _rename(name, {key: tensor for key, tensor in found.items() if not _fixed.search(key)})
    return {key: tensor.T if _stored_across.search(key) else tensor for key, tensor in converted.items()}
