"""What `dlzoo explain` draws of a run that was trained on pictures or on recordings."""

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlzoo import rundir, verbs, zoo
from dlzoo.rundir import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from dlzoo.explain.pictures import Sample
    from dlzoo.insight import Options

# what there is, and what to look at in it
KINDS = {
    "gradcam": "is the heat on the object, or on what stands around it?",
    "filters": "edges and colours after good training; noise means too little training, or too large a rate",
    "features": "the picture, then its edges, then fewer places and more of what is there; channels that are empty are dead",
    "visualize": "what a class looks like to the network: shapes, or only a texture?",
    "occlusion": "red parts carry the decision; a red background is a shortcut that will not hold elsewhere",
    "receptive_field": "the frame is what a unit can see, the heat what it looks at: larger objects are seen in parts",
    "landscape": "wide and smooth around the trained weights, or narrow and rough?",
    "confusion": "which classes are taken for each other, and whether both ways",
    "mistakes": "is the label right? is there anything that they have in common?",
}
LOOKED_AT = 256  # test pictures that are read


class Look:
    """One run's network and data, each read when first needed."""

    kinds = KINDS

    def __init__(self, run: Run, named: str | Path, options: "Options") -> None:
        self.run, self.options = run, options
        self.title = str(run.config["name"])
        self.net = verbs.load(named, options.which)
        self._data: Any = None
        self._sample: Sample | None = None
        self._answers: tuple[Tensor, Tensor, Tensor] | None = None

    def hints(self, drawn: list[str]) -> list[str]:
        """What to say when all is drawn."""
        if "landscape" not in drawn or self.checkpoints():
            return []
        return [
            "for the way of a training in its landscape: callbacks.checkpoint.keep_every_n_epochs=1, or callbacks=landscape"
        ]

    def tell(self, kind: str) -> list[str]:
        """What there is to read beside a figure: nothing."""
        return []

    def draw(self, kind: str) -> "dict[str, Figure]":
        """The figures of one kind, by the names of their files."""
        from dlzoo.explain import pictures

        if kind in ("confusion", "mistakes"):
            return {kind: getattr(self, f"_{kind}")()}
        if kind == "landscape":
            return self._landscape()
        if kind == "occlusion":
            return {kind: pictures.occlusion_picture(self.net, self.sample, self.title)}
        draw = {
            "gradcam": pictures.gradcam_picture,
            "filters": pictures.filters_picture,
            "features": pictures.features_picture,
            "visualize": pictures.visualize_picture,
            "receptive_field": pictures.field_picture,
        }[kind]
        return {kind: draw(self.net, self.sample, self.title, self.options.layer)}

    @property
    def data(self) -> Any:
        if self._data is None:
            from dlzoo.config import run_config

            self._data = zoo.build(run_config(self.run, list(self.options.overrides))["data"])
            self._data.prepare_data()
            self._data.setup("fit")
            self._data.setup("test")
        return self._data

    @property
    def sample(self) -> "Sample":
        """The user's picture, or test pictures, those of different classes first."""
        if self._sample is None:
            from dlzoo.explain.pictures import Sample

            summary = self.run.summary
            how, classes = summary["preprocess"], summary["classes"]
            colours = {key: how[key] for key in ("mean", "std") if how.get(key)}
            if self.options.picture:
                images = verbs.preprocessing(self.run)(self.options.picture)[None]
                self._sample = Sample(images, classes, None, **colours)
            else:
                images, labels = self.data.test_images(LOOKED_AT)
                if labels.ndim > 1:  # a map of labels: a picture has no class of its own
                    self._sample = Sample(images, classes, None, **colours)
                else:
                    # where the files lie class by class, the first are of one class; small pictures are read in no time
                    if len(set(labels.tolist())) < len(classes):
                        images, labels = self.data.test_images(16_384 if images[0].numel() <= 3 * 64 * 64 else 4 * LOOKED_AT)
                    order = _one_of_each(labels.tolist())
                    self._sample = Sample(images[order], classes, labels[order].tolist(), **colours)
        return self._sample

    def checkpoints(self) -> list[Path]:
        """The weights that the run kept on its way, the oldest first."""
        kept = sorted((self.run.dir / "explain" / "trajectory").glob("step_*.safetensors"))
        return kept or sorted((self.run.dir / "checkpoints").glob("epoch_*.ckpt"))

    def _landscape(self) -> "dict[str, Figure]":
        from dlzoo.explain.landscape import mean_loss
        from dlzoo.explain.pictures import surface_terrain, way_picture
        from dlzoo.plots.landscape import landscape

        images, labels = self._held_out()
        loss = mean_loss(images, labels)
        count = self.options.points
        print(f"landscape: {count * count} points of {len(labels)} samples each", file=sys.stderr, flush=True)
        terrains = [surface_terrain(self.net, loss, _model(self.run), count)]
        if self.options.beside:
            other = rundir.find(self.options.beside)
            net = verbs.load(self.options.beside, self.options.which)
            terrains.append(surface_terrain(net, loss, _model(other), count))
        note = f"Loss of {len(labels)} validation samples in two random filter-normalised directions."
        figures = {"landscape": landscape(terrains, f"{self.title}: the loss around the trained weights", note)}
        if len(self.checkpoints()) >= 3:
            weights = [_weights(path) for path in self.checkpoints()]
            title = f"{self.title}: the way of the training"
            figures["landscape_way"] = way_picture(self.net, loss, weights, title, count)
        return figures

    def _held_out(self) -> "tuple[Tensor, Tensor]":
        """Validation samples, or test samples where nothing validates; as many as asked for."""
        import torch

        from dlzoo.explain.pictures import evenly

        loader = self.data.val_dataloader() if self.data.validates else self.data.test_dataloader()
        share = -(-self.options.samples // len(loader))  # some of each batch: the files may lie class by class
        images, labels = zip(*[(x[some], y[some]) for x, y in loader if (some := evenly(share, len(y)))], strict=True)
        some = evenly(self.options.samples, sum(map(len, labels)))
        return torch.cat(images)[some], torch.cat(labels)[some]

    def _answered(self) -> "tuple[Tensor, Tensor, Tensor]":
        """Of the whole test split: the logits, the labels, and the inputs that were told wrong, the surest first."""
        if self._answers is None:
            import torch

            from dlzoo.explain.layers import require_scores

            logits, labels, wrong, losses = [], [], [], []
            with torch.inference_mode():
                for x, y in self.data.test_dataloader():
                    scores = require_scores(self.net(x)).float()
                    loss = torch.nn.functional.cross_entropy(scores, y, reduction="none")
                    missed = scores.argmax(1) != y
                    logits.append(scores)
                    labels.append(y)
                    wrong.append((x[missed], scores[missed], y[missed]))
                    losses.append(loss[missed])
            order = torch.cat(losses).argsort(descending=True)[:32]
            worst = [torch.cat(parts)[order] for parts in zip(*wrong, strict=True)]
            self._answers = torch.cat(logits), torch.cat(labels), worst
        return self._answers

    def _confusion(self) -> "Figure":
        import torch

        from dlzoo.plots.confusion import confusion

        logits, labels, _ = self._answered()
        classes = self.run.summary["classes"]
        counts = torch.bincount(labels * len(classes) + logits.argmax(1), minlength=len(classes) ** 2)
        return confusion(counts.view(len(classes), -1), classes, f"{self.title}, test")

    def _mistakes(self) -> "Figure":
        from dlzoo.explain.layers import require_pictures
        from dlzoo.explain.pictures import Sample
        from dlzoo.plots.images import image_grid

        _, _, (images, logits, labels) = self._answered()
        require_pictures(images)
        like = self.sample
        shown = Sample(images, like.classes, None, like.mean, like.std)
        captions = [
            f"{like.name(top)} {share:.2f}, is {like.name(label)}"
            for (share, top), label in zip(_tops(logits), labels.tolist(), strict=True)
        ]
        return image_grid(shown.shown, captions, f"{self.title}, test: the worst mistakes")


def _model(run: Run) -> str:
    """What a landscape is called by: the model's name in the catalogue, what was changed in it, and its loss."""
    node, summary = run.config["model"], run.summary
    ends = ("_target_", "num_classes", "in_channels", "vocab_size")  # these come from the data
    ours = {key: value for key, value in node.items() if key not in ends}
    names = {}
    for name in zoo.list_models():
        info = zoo.model_info(name)
        if info.target == node["_target_"]:
            changed = [f"{key}={value}" for key, value in ours.items() if info.arguments.get(key) != value]
            names[name] = ", ".join([name, *changed])
    name = min(names.values(), key=len, default=summary["model"])
    loss = summary.get("metrics", {}).get("val/loss")
    return name + (f", val/loss {loss:.3f}" if loss is not None else "")


def _one_of_each(labels: list[int]) -> list[int]:
    """Indices: the first of each class, then the second of each, and so on; LOOKED_AT at most."""
    of_class: dict[int, list[int]] = {label: [] for label in sorted(set(labels))}
    for index, label in enumerate(labels):
        of_class[label].append(index)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*of_class.values()))
    return [index for index in turns if index is not None][:LOOKED_AT]


def _tops(logits: "Tensor") -> list[tuple[float, int]]:
    best = logits.softmax(1).max(1)
    return list(zip(best.values.tolist(), best.indices.tolist(), strict=True))


def _weights(path: Path) -> "dict[str, Tensor]":
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    from dlzoo.checkpoints import network_weights

    return network_weights(path)
