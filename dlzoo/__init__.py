"""dlzoo: a PyTorch model zoo, training framework and course.

The names below are the whole public face; torch is imported when one of them first needs it.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "create_model": "dlzoo.zoo",
    "list_models": "dlzoo.zoo",
    "model_info": "dlzoo.zoo",
    "compose": "dlzoo.config",
    "train": "dlzoo.run",
    "load": "dlzoo.verbs",
    "Run": "dlzoo.rundir",
}
__all__ = ["Run", "__version__", "compose", "create_model", "list_models", "load", "model_info", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dlzoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
