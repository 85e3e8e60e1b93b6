"""bf16 against fp32: a language model learns the same in both."""

import os
from pathlib import Path

import pytest
import torch

import dlzoo

DATA = Path(os.environ.get("DLZOO_DATA", "data"))


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "tiny_shakespeare" / "input.txt").is_file(), reason="DLZOO_DATA holds no tiny Shakespeare")
def test_bf16_learns_as_fp32_does(tmp_path):
    """500 steps at nanoGPT's rate: at each validation the losses are within 0.02, and the computation was another."""
    found = {}
    for precision in ("32-true", "bf16-mixed"):
        words = ["experiment=shakespeare_gpt", "trainer=cpu", f"trainer.precision={precision}", "trainer.max_epochs=4"]
        words += [
            "optimizer.lr=1e-3",
            "data.epoch_size=1500",
            f"data_dir={DATA}",
            "task.sample_length=0",
            f"run_dir={tmp_path}/{precision}",
        ]
        run = dlzoo.train(dlzoo.compose(*words), words)
        assert run.summary["precision"] == precision and run.summary["steps"] == 500
        found[precision] = torch.tensor([*run.history["val/loss"][1], run.metrics["test/loss"]])
    print({precision: losses.tolist() for precision, losses in found.items()})
    apart = (found["32-true"] - found["bf16-mixed"]).abs()
    assert len(apart) == 5 and 0 < apart.max() < 0.02, found
    assert found["32-true"][-1] < 2.45  # from 4.17: it has learned
