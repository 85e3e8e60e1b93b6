"""What the language models are compared with."""

import importlib.util

import pytest


@pytest.fixture(scope="session")
def transformers():
    """transformers. It imports torchaudio where that is there, which refuses a torch of another CUDA; so that comes first."""
    if importlib.util.find_spec("torchaudio"):
        from dlzoo.data.waveforms import torchaudio

        torchaudio()
    module = pytest.importorskip("transformers")
    module.GPT2LMHeadModel, module.LlamaForCausalLM  # noqa: B018, imported here and not in the time of a test
    return module
