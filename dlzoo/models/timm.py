"""Any model of timm, as a model of the zoo: the doors to a thousand architectures that have no file here.

timm's own code builds it; a task and everything behind it treat the network like ours. The published weights lie on a hub.

Source: Wightman 2019, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models.

Shapes: B batch, C channels, H height, W width.
"""

import difflib
import os

from torch import nn

__all__ = ["timm"]


def timm(
    timm_name: str = "resnet10t",
    num_classes: int = 1000,
    in_channels: int = 3,
    image_size: int | None = None,
    stochastic_depth: float = 0.0,
    pretrained: bool = False,
) -> nn.Module:
    """A model of timm.

    Args:
        timm_name: a name that `timm.list_models()` gives, such as "convnext_tiny", or one of its published weights,
            "convnext_tiny.in12k_ft_in1k".
        num_classes: width of the output.
        in_channels: channels of the image.
        image_size: for models that have to know it, such as vision transformers; None leaves timm's.
        stochastic_depth: for models that have it, the probability of the last block ("drop path").
        pretrained: begin with the published weights; a head of another number of classes is new.

    Shape:
        (B, C, H, W) -> (B, num_classes), logits.

    Raises:
        ValueError: timm has no such model or weights, a number is below 1, or the model does not take an argument.
        ConnectionError: the weights are not on this machine, and can not be downloaded.
    """
    from timm import create_model  # two seconds: only for those who use it

    _require_name(timm_name)
    for name, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    arguments = {"num_classes": num_classes, "in_chans": in_channels}
    arguments |= {"img_size": image_size} if image_size else {}
    arguments |= {"drop_path_rate": stochastic_depth} if stochastic_depth else {}
    overlay = {"file": _weights(timm_name), "custom_load": False} if pretrained else None
    try:
        return create_model(timm_name, pretrained=pretrained, pretrained_cfg_overlay=overlay, **arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:  # timm's models check in many ways, or do not
        given = ", ".join(f"{key}={value}" for key, value in arguments.items())
        raise ValueError(f"timm's {timm_name} can not be built with {given}: {str(error).splitlines()[0]}") from error


def _require_name(name: str) -> None:
    """Only names of timm's own list: others would be read as addresses on a hub or as folders."""
    from timm import list_models, list_pretrained

    base, _, tag = name.partition(".")
    known = list_models()
    if base not in known:
        near = difflib.get_close_matches(base, known, n=3)
        hint = f": did you mean {' or '.join(map(repr, near))}?" if near else "; timm.list_models() lists them"
        raise ValueError(f"timm has no model {base!r}{hint}")
    if tag and name not in list_pretrained(f"{base}.*"):
        tags = [other.partition(".")[2] for other in list_pretrained(f"{base}.*")]
        raise ValueError(f"timm has no weights {tag!r} of {base}, only: {', '.join(tags) or 'none'}")


def _weights(name: str) -> str:
    """The file of the published weights, in the hub's own cache; downloaded where it is missing."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from timm import list_pretrained
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        published = ", ".join(list_pretrained(f"{name.partition('.')[0]}.*")[:5])
        raise ValueError(f"timm publishes no weights of {name}" + (f"; of {published} it does" if published else ""))
    file = config.hf_hub_filename or "model.safetensors"
    found = try_to_load_from_cache(config.hf_hub_id, file)
    if isinstance(found, str):
        return found
    missing = f"the weights of timm's {name} are missing ({file} of https://huggingface.co/{config.hf_hub_id})"
    if os.environ.get("DLZOO_OFFLINE", "").strip().lower() in {"1", "true", "yes", "on"}:
        raise ConnectionError(f"{missing}, and DLZOO_OFFLINE forbids downloads")
    try:
        return hf_hub_download(config.hf_hub_id, file)
    except Exception as error:  # the hub's client raises many kinds, and each means that the file did not come
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConnectionError(f"{missing}, and could not be downloaded: {reason}") from error
