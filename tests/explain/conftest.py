"""Pictures of drawn shapes whose places are known, and a small network that has learned to tell them apart in seconds."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 40
KINDS = ("square", "disc", "cross", "bars")


class Small(nn.Module):
    """Three convolutions, of which two halve the picture."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((1, 16, 2), (16, 24, 2), (24, 32, 1)):
            layers += [nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(32, len(KINDS))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


@pytest.fixture(scope="session", name="drawn_shapes")
def _drawn_shapes():
    """drawn_shapes(count, seed, objects=1)."""
    return drawn_shapes


def drawn_shapes(count: int, seed: int, objects: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes of 9 to 13 pixels on noise; of several in a picture no two are of one kind, and none touches another.

    Shape:
        -> (N, 1, 40, 40), (N,) or (N, objects), and their boxes (N, 4) or (N, objects, 4): left, top, right, bottom.
    """
    random = torch.Generator().manual_seed(seed)
    images = 0.15 * torch.randn(count, 1, SIDE, SIDE, generator=random)
    labels = torch.stack([torch.randperm(len(KINDS), generator=random)[:objects] for _ in range(count)])
    boxes = torch.zeros(count, objects, 4, dtype=torch.long)
    for index in range(count):
        halves = torch.randperm(2, generator=random).tolist()  # with two objects each has a half of the picture
        for which in range(objects):
            side = int(torch.randint(9, 14, (), generator=random))
            width = SIDE // objects
            left = int(torch.randint(0, width - side + 1, (), generator=random)) + halves[which] * (SIDE - width)
            top = int(torch.randint(0, SIDE - side + 1, (), generator=random))
            shape = _mask(KINDS[labels[index, which]], side)
            images[index, 0, top : top + side, left : left + side] += shape
            boxes[index, which] = torch.tensor((left, top, left + side, top + side))
    return (images, labels[:, 0], boxes[:, 0]) if objects == 1 else (images, labels, boxes)


def _mask(kind: str, side: int) -> Tensor:
    rows, columns = torch.meshgrid(*[torch.arange(side) - (side - 1) / 2] * 2, indexing="ij")
    if kind == "square":
        edge = torch.maximum(rows.abs(), columns.abs())
        return (edge > side / 2 - 2).float()
    if kind == "disc":
        return (rows**2 + columns**2 <= (side / 2) ** 2).float()
    if kind == "cross":
        return ((rows.abs() < 1.5) | (columns.abs() < 1.5)).float()
    return (torch.arange(side)[:, None] % 4 < 2).float().expand(side, side)


@pytest.fixture(scope="session")
def shapes_net() -> nn.Module:
    """A network that is right on more than 95 % of such pictures."""
    torch.manual_seed(0)
    net, steps = Small(), 160
    climb = torch.optim.Adam(net.parameters(), lr=0.01)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(climb, steps)
    images, labels, _ = drawn_shapes(2048, seed=0)
    for step in range(steps):
        some = torch.arange(step * 64, step * 64 + 64) % len(images)
        loss = F.cross_entropy(net(images[some]), labels[some])
        climb.zero_grad()
        loss.backward()
        climb.step()
        fall.step()
    net.eval()
    images, labels, _ = drawn_shapes(200, seed=99)
    with torch.no_grad():
        right = float((net(images).argmax(1) == labels).double().mean())
    assert right > 0.95, f"the network of the tests has not learned its shapes: {right:.0%}"
    return net
