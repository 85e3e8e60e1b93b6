"""Grad-CAM of the same pictures at every validation: what the network looks at while it learns."""

import lightning as L
from torch import nn

from dlzoo.callbacks.looking import Looking
from dlzoo.explain.pictures import gradcam_picture
from dlzoo.plots import figure


class GradCam(Looking):
    """Draws gradcam.png into the run directory, anew at every validation.

    Args:
        run_dir: the run directory.
        samples: how many validation pictures.
        layer: whose map is used, as `net.named_modules()` names it; None takes the last.
    """

    def __init__(self, run_dir: str, samples: int = 8, layer: str | None = None) -> None:
        super().__init__(run_dir, samples)
        self.layer = layer

    def look(self, trainer: L.Trainer, net: nn.Module) -> None:
        title = f"epoch {trainer.current_epoch + 1}"
        figure.save(gradcam_picture(net, self.sample(trainer), title, self.layer), self.dir / "gradcam.png")
