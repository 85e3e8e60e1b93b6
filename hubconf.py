"""torch.hub finds here every model of the catalogue: torch.hub.load("<owner>/dlzoo", "resnet20", num_classes=100)."""

from typing import Any as _Any

from dlzoo.zoo import create_model as _create_model
from dlzoo.zoo import list_models as _list_models
from dlzoo.zoo import model_info as _model_info

dependencies = ["torch", "yaml"]


def _entry(name: str) -> _Any:
    def entry(pretrained: bool = False, **overrides: _Any) -> _Any:
        return _create_model(name, pretrained, **overrides)

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"{_model_info(name).summary}\n\nArguments: pretrained=False, and those of configs/model/{name}.yaml."
    return entry


# torch.hub reads this module's names: one for each file of configs/model
globals().update({_name: _entry(_name) for _name in _list_models()})
