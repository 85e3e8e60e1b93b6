"""The feature maps of the same picture at every validation: how the layers come to life."""

import lightning as L
from torch import nn

from dlzoo.callbacks.looking import Looking
from dlzoo.explain.pictures import features_picture
from dlzoo.plots import figure


class FeatureMaps(Looking):
    """Draws feature_maps.png into the run directory, anew at every validation.

    Args:
        run_dir: the run directory.
        layer: the layer, as `net.named_modules()` names it; None takes the last of each size of map.
    """

    def __init__(self, run_dir: str, layer: str | None = None) -> None:
        super().__init__(run_dir, samples=1)
        self.layer = layer

    def look(self, trainer: L.Trainer, net: nn.Module) -> None:
        title = f"epoch {trainer.current_epoch + 1}"
        figure.save(features_picture(net, self.sample(trainer), title, self.layer), self.dir / "feature_maps.png")
