"""Published weights of the Vision Transformers: DeiT's, trained on ImageNet-1k alone.

timm's files have DeiT's names, and torchvision's ViT-B/16 is the same network under other names: all three are read.
timm's own weights lie on a hub that states no hash beside the file, so they are not among the sources.
"""

from dlzoo.pretrained import Source
from dlzoo.pretrained.renaming import converter

__all__ = ["SOURCES", "convert"]

DEIT = "https://dl.fbaipublicfiles.com/deit/"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _deit(file: str, top1: str, top5: str) -> Source:
    """torch.hub checks the digits in the file's name: they are the first 8 of its sha256."""
    accuracy = f"ImageNet-1k validation, one crop of 224: top-1 {top1} %, top-5 {top5} %"
    sha256 = file.removesuffix(".pth").rsplit("-", 1)[-1]
    return Source(DEIT + file, sha256, "Apache-2.0", accuracy, "Touvron et al. 2020, DeiT without distillation", **IMAGENET)


SOURCES = {
    "vit_tiny": _deit("deit_tiny_patch16_224-a1311bcf.pth", "72.202", "91.124"),
    "vit_small": _deit("deit_small_patch16_224-cd65a155.pth", "79.854", "94.968"),
    "vit_base": _deit("deit_base_patch16_224-b5f2ef4d.pth", "81.846", "95.594"),
}

convert = converter(
    [
        # timm, DeiT
        (r"^cls_token$", "class_token"),
        (r"^pos_embed$", "places"),
        (r"^patch_embed\.proj\.", "patches."),
        (r"^(blocks\.\d+\.)attn\.(qkv|proj)\.", r"\1attention.\2."),
        (r"^(blocks\.\d+\.mlp\.)fc1\.", r"\g<1>0."),
        (r"^(blocks\.\d+\.mlp\.)fc2\.", r"\g<1>2."),
        (r"^(blocks\.\d+\.norm[12]|norm|head)\.", r"\1."),
        # torchvision
        (r"^class_token$", "class_token"),
        (r"^encoder\.pos_embedding$", "places"),
        (r"^conv_proj\.", "patches."),
        (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
        (r"^(blocks\.\d+\.)self_attention\.in_proj_", r"\1attention.qkv."),
        (r"^(blocks\.\d+\.)self_attention\.out_proj\.", r"\1attention.proj."),
        (r"^(blocks\.\d+\.)ln_([12])\.", r"\1norm\2."),
        (r"^(blocks\.\d+\.mlp)\.3\.", r"\1.2."),
        (r"^encoder\.ln\.", "norm."),
        (r"^heads\.head\.", "head."),
    ]
)
