"""Published weights of the VGG networks: torchvision's for ImageNet."""

from dlzoo.pretrained import imagenet
from dlzoo.pretrained.renaming import converter

__all__ = ["SOURCES", "convert"]

PAPER = "Simonyan, Zisserman 2014, torchvision's IMAGENET1K_V1"

SOURCES = {
    "vgg11": imagenet("vgg11-8a719046.pth", "69.020", "88.628", PAPER),
    "vgg13": imagenet("vgg13-19584684.pth", "69.928", "89.246", PAPER),
    "vgg16": imagenet("vgg16-397923af.pth", "71.592", "90.382", PAPER),
    "vgg19": imagenet("vgg19-dcbb9e9d.pth", "72.376", "90.876", PAPER),
    "vgg11_bn": imagenet("vgg11_bn-6002323d.pth", "70.370", "89.810", f"{PAPER}, with batch norm"),
    "vgg13_bn": imagenet("vgg13_bn-abd245e5.pth", "71.586", "90.374", f"{PAPER}, with batch norm"),
    "vgg16_bn": imagenet("vgg16_bn-6c64b313.pth", "73.360", "91.516", f"{PAPER}, with batch norm"),
    "vgg19_bn": imagenet("vgg19_bn-c79401a0.pth", "74.218", "91.842", f"{PAPER}, with batch norm"),
}

convert = converter(((r"^features\.", "layers."), (r"^classifier\.6\.", "head."), (r"^classifier\.", "hidden.")))
