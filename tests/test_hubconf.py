"""torch.hub reads hubconf.py from the root of the repository."""

import importlib.util
from pathlib import Path

import torch

from dlzoo.zoo import list_models

ROOT = Path(__file__).parent.parent


def test_offers_the_catalogue_and_nothing_else():
    spec = importlib.util.spec_from_file_location("hubconf_under_test", ROOT / "hubconf.py")
    hubconf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hubconf)
    offered = {name for name in dir(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")}
    assert offered == set(list_models())
    assert all(importlib.util.find_spec(package) for package in hubconf.dependencies)
    assert "section 4.2" in hubconf.resnet20.__doc__


def test_loads_through_torch_hub():
    net = torch.hub.load(str(ROOT), "resnet20", source="local", num_classes=7)
    assert net.head.out_features == 7
