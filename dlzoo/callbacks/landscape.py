"""The way of a training through the landscape of its loss, drawn when it is over."""

from pathlib import Path

import lightning as L
from safetensors.torch import load_file, save_file
from torch import nn

from dlzoo.callbacks.looking import Looking
from dlzoo.explain.landscape import mean_loss
from dlzoo.explain.pictures import way_picture
from dlzoo.plots import figure


class Landscape(Looking):
    """Keeps the weights at the start and at every validation, and draws landscape.png in the end. Li et al. 2018, section 7.

    The weights lie in explain/trajectory of the run directory, one file a validation, so that a run that was interrupted still
    has those from before.

    Args:
        run_dir: the run directory.
        samples: validation samples that the loss is the mean of.
        points: of the grid along one side; the loss is taken points x points times.
    """

    def __init__(self, run_dir: str, samples: int = 256, points: int = 15) -> None:
        super().__init__(run_dir, samples)
        if points < 2:
            raise ValueError(f"points must be at least 2, got {points}")
        self.points = points
        self.folder = self.dir / "explain" / "trajectory"

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if trainer.is_global_zero:
            for path in self._files():  # of steps that were lost with what came after the last save
                if _step(path) > trainer.global_step:
                    path.unlink()
            with self.aside(task.net) as net:
                self.look(trainer, net)

    def look(self, trainer: L.Trainer, net: nn.Module) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        weights = {name: parameter.detach().contiguous() for name, parameter in net.named_parameters()}
        path = self.folder / f"step_{trainer.global_step:08d}.safetensors"
        temporary = path.with_suffix(".tmp")
        save_file(weights, temporary)
        temporary.replace(path)

    def on_train_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if not trainer.is_global_zero or not self._kept or len(self._files()) < 3:
            return
        with self.aside(task.net) as net:
            weights = [load_file(path) for path in self._files()]
            title = f"the way of the training, {trainer.current_epoch} epochs"
            drawn = way_picture(net, mean_loss(*self.kept()), weights, title, self.points)
            figure.save(drawn, self.dir / "landscape.png")

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step_*.safetensors"))


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step_"))
