"""DeepSpeed's ZeRO: each device keeps a share of the optimizer (stage 1), of the gradients too (2), of the weights as well (3).

Source: Rajbhandari et al. 2020, ZeRO, https://arxiv.org/abs/1910.02054; offloading: Ren et al. 2021, https://arxiv.org/abs/2101.06840.
Lightning's strategy asks for CUDA in four places, though DeepSpeed runs on a CPU over gloo; there it is taught not to, so that
what runs on many GPUs is tested without one.
"""

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from dlzoo import sharded
from dlzoo.errors import CheckpointError, ConfigError
from dlzoo.strategies.buffers import broadcast_buffers
from dlzoo.strategies.hooks import without_hooks

__all__ = ["DeepSpeed"]


class DeepSpeed(DeepSpeedStrategy):
    """ZeRO over all devices, on GPUs and, for tests, on several processes of a CPU over gloo.

    Args:
        stage: 1 shares the optimizer, 2 the gradients too, 3 the weights as well.
        offload: keep the optimizer's share, and in stage 3 the weights' too, in the machine's memory.
        bucket_size: numbers that are exchanged at a time; the buffers for it take memory on each device.
        timeout_seconds: how long a device waits for the others in one exchange.

    Raises:
        ConfigError: DeepSpeed is not installed.
        ValueError: a stage that does not exist, or one that can not offload.
    """

    def __init__(
        self, stage: int = 2, offload: bool = False, bucket_size: int = 50_000_000, timeout_seconds: float = 1800.0
    ) -> None:
        if stage not in (1, 2, 3):
            raise ValueError(f"stage must be 1, 2 or 3, got {stage}")
        if importlib.util.find_spec("deepspeed") is None:
            raise ConfigError("DeepSpeed is not installed", where="trainer.strategy", fix='pip install "dlzoo[deepspeed]"')
        if not torch.cuda.is_available():
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        super().__init__(
            stage=stage,
            offload_optimizer=offload,
            offload_parameters=offload and stage == 3,
            allgather_bucket_size=bucket_size,
            reduce_bucket_size=bucket_size,
            logging_batch_size_per_gpu=1,  # for its own log of the speed, which is off
            logging_level=logging.ERROR,  # it warns of every optimizer that is not its own
            timeout=timedelta(seconds=timeout_seconds),
        )
        self.config["zero_force_ds_cpu_optimizer"] = False  # the config's optimizer is the one that is meant, offloaded too

    @property
    def root_device(self) -> torch.device:
        return super().root_device if self._cuda else torch.device("cpu", self.local_rank)  # DeepSpeed wants an index

    @property
    def _cuda(self) -> bool:
        return isinstance(self.accelerator, CUDAAccelerator)

    def setup_environment(self) -> None:
        # what comes after DeepSpeedStrategy's own check for CUDA
        super().setup_environment() if self._cuda else DDPStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        if self._cuda:
            super().setup_distributed()
            return
        import deepspeed

        # an exchange through shared memory that it would compile, for minutes, when first used; gloo is there already
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    def init_deepspeed(self) -> None:
        super().init_deepspeed()
        from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine

        class PlainFiles(TorchCheckpointEngine):
            """Reads nothing but tensors and plain values."""

            def load(self, path: str, map_location: Any = None) -> Any:
                return torch.load(path, map_location=map_location, weights_only=True)

        sharded.trust_deepspeed()
        engine = self.deepspeed_engine
        engine.checkpoint_engine = PlainFiles(config_params=engine._config)

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:
        # Lightning divides by the batches of an accumulated step, and DeepSpeed again: the gradients, and the norm that is
        # clipped, would be too small by that factor
        whole = closure_loss * self.deepspeed_engine.gradient_accumulation_steps()
        return super().backward(whole, optimizer, *args, **kwargs)

    def on_validation_start(self) -> None:
        broadcast_buffers(self.lightning_module)

    def on_test_start(self) -> None:
        broadcast_buffers(self.lightning_module)

    @contextmanager
    def whole(self, net: nn.Module) -> Iterator[None]:
        """In it every device has all weights of a network, and may use it as it likes, without the others.

        All of them enter it and leave it together: in stage 3 the weights are gathered once.

        Args:
            net: a network of the task.
        """
        if not self.zero_stage_3:
            yield
            return
        import deepspeed

        self.deepspeed_engine.empty_partition_cache()  # some may be on their way, for modules that would have come next
        with deepspeed.zero.GatheredParameters(net.parameters()), without_hooks(net):
            yield

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        path = Path(self.broadcast(str(checkpoint_path)))
        if sharded.kind(path) != "deepspeed":
            raise CheckpointError(
                f"{path.name} is not DeepSpeed's, which is all that DeepSpeed can go on from",
                where=str(path),
                fix="the trainer that wrote it",
            )
        if self.lightning_module.trainer.state.fn != "fit" and self.zero_stage_3:
            # for inference DeepSpeed has no way of its own from shares to shares
            content = sharded.read(path, weights=self.is_global_zero)
            self._restore_zero_state(content, strict=True)
            return content
        wrote = sharded.world_size(path)
        if self.lightning_module.trainer.state.fn == "fit" and wrote != self.world_size:
            raise CheckpointError(
                f"{path.name} was written by {wrote} processes, and ZeRO goes on with as many; here are {self.world_size}",
                where=str(path),
                safe="the checkpoint was only looked at",
                fix=f"trainer.devices={wrote}; or the weights alone: dlzoo consolidate RUN",
            )
        with sharded.reading(path):
            return super().load_checkpoint(path, weights_only=True)
