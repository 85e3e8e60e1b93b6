"""The pointing game on real photos: a network that learned which windows of a blood smear hold a white cell finds the cell."""

import io
import random
import tarfile
import xml.etree.ElementTree as ElementTree

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlzoo.explain.gradcam import gradcam

SCALE = 4  # 640 x 480 photos are read at 160 x 120
WINDOW = 72


def _split(data_dir, name):
    """[(picture, white cells' boxes)] of one of the set's own splits."""
    from PIL import Image

    found = []
    with tarfile.open(data_dir / "bccd" / "bccd.tar") as archive:
        members = {member.name.rsplit("/", 1)[-1]: member for member in archive.getmembers() if member.isfile()}
        for stem in archive.extractfile(members[f"{name}.txt"]).read().decode().split():
            root = ElementTree.fromstring(archive.extractfile(members[f"{stem}.xml"]).read())
            boxes = [
                [int(thing.find("bndbox").find(side).text) // SCALE for side in ("xmin", "ymin", "xmax", "ymax")]
                for thing in root.iter("object")
                if thing.find("name").text == "WBC"
            ]
            with Image.open(io.BytesIO(archive.extractfile(members[f"{stem}.jpg"]).read())) as image:
                small = image.convert("RGB").resize((640 // SCALE, 480 // SCALE))
            pixels = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(480 // SCALE, 640 // SCALE, 3)
            found.append((pixels.permute(2, 0, 1).float() / 127.5 - 1, [box for box in boxes if box[2] > box[0]]))
    return found


def _windows(pictures, count, seed):
    """Windows that hold the middle of a white cell, and windows that no white cell reaches into."""
    draw = random.Random(seed)
    images, labels = [], []
    while len(images) < count:
        picture, boxes = draw.choice(pictures)
        top, left = draw.randint(0, picture.shape[1] - WINDOW), draw.randint(0, picture.shape[2] - WINDOW)
        bottom, right = top + WINDOW, left + WINDOW
        holds = any(left <= (x0 + x1) / 2 < right and top <= (y0 + y1) / 2 < bottom for x0, y0, x1, y1 in boxes)
        reached = any(x0 < right and x1 > left and y0 < bottom and y1 > top for x0, y0, x1, y1 in boxes)
        if holds == reached and holds == bool(len(images) % 2):
            images.append(picture[:, top:bottom, left:right])
            labels.append(int(holds))
    return torch.stack(images), torch.tensor(labels)


@pytest.mark.slow
def test_white_cells_are_pointed_at(data_dir):
    if not (data_dir / "bccd" / "bccd.tar").is_file():
        pytest.skip("bccd is not among the data sets")
    torch.manual_seed(0)
    layers, channels = [], 3
    for width, stride in ((16, 2), (24, 2), (32, 2)):
        layers += [nn.Conv2d(channels, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2))
    images, labels = _windows(_split(data_dir, "trainval"), 1024, seed=0)
    steps = 160
    climb = torch.optim.Adam(net.parameters(), lr=0.01)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(climb, steps)
    for step in range(steps):
        some = torch.arange(step * 32, step * 32 + 32) % len(images)
        loss = F.cross_entropy(net(images[some]), labels[some])
        climb.zero_grad()
        loss.backward()
        climb.step()
        fall.step()
    tested = [(picture, boxes) for picture, boxes in _split(data_dir, "test") if boxes]
    assert len(tested) > 60
    hits, chance = 0, 0.0
    for picture, boxes in tested:  # the whole photo, in which the network has never been asked for anything
        heat = gradcam(net, picture[None], [1])[0]
        row, column = divmod(int(heat.argmax()), heat.shape[1])
        hits += any(x0 <= column < x1 and y0 <= row < y1 for x0, y0, x1, y1 in boxes)
        chance += sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes) / heat.numel()
    assert chance / len(tested) < 0.25
    assert hits / len(tested) >= 0.85, (hits, len(tested))
