"""What one does with a finished run: load it, measure it, ask it, export it."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlzoo import rundir, zoo
from dlzoo.checkpoints import load_weights
from dlzoo.errors import ConfigError, DataError
from dlzoo.rundir import Run

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dlzoo.data.preprocess import Preprocess

CHECKED_BATCHES = (1, 7, 64)  # sizes at which an export is compared with torch, besides all pictures
# files that `predict` takes, by the kind of input that a run was trained on
ENDINGS = {"image": (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")}
ENDINGS["wave"] = (".wav", ".flac", ".ogg", ".mp3")


@dataclass(frozen=True)
class Prediction:
    """What a network says of one file.

    Args:
        file: the path.
        labels: class names, the likeliest first; of a mask, the largest.
        probabilities: theirs; of a mask, their shares of the picture.
        overlay: the file of the picture under its mask, where the answer is one.
    """

    file: str
    labels: list[str]
    probabilities: list[float]
    overlay: str = ""


def load(run: str | Path, which: str = "best") -> "nn.Module":
    """The trained network of a run, in evaluation mode, on the CPU. Nothing in the checkpoint is executed.

    Args:
        run: its directory, or one of its checkpoints.
        which: "best" or "last", where `run` is a directory.

    Raises:
        ConfigError: no run is there.
        CheckpointError: it has no checkpoint, or one that is damaged or another model's.
    """
    found = rundir.find(run)
    path = Path(run) if Path(run).suffix == ".ckpt" else found.checkpoint(which)
    config = found.config
    net = zoo.build(zoo.without_published(config["model"]))
    load_weights(net, path, config["model"])
    return net.eval()


def evaluate(run: str | Path, which: str = "best", overrides: list[str] | None = None) -> dict[str, float]:
    """The metrics of a run's weights on the test split; written to evaluation.json, the pictures drawn again.

    Args:
        run: its directory, or one of its checkpoints.
        which: "best" or "last", where `run` is a directory.
        overrides: such as data_dir=PATH or trainer.accelerator=cpu.

    Raises:
        DlzooError: as for `train` and `load`.
    """
    from dlzoo.run import prepare_evaluation

    found = rundir.find(run)
    path = Path(run) if Path(run).suffix == ".ckpt" else found.checkpoint(which)
    task, data, trainer, config = prepare_evaluation(found, overrides or [])
    load_weights(task.net, path, config["model"])
    trainer.test(task, datamodule=data, verbose=False)
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    if trainer.is_global_zero:
        measured = {"checkpoint": path.name, "edition": data.edition, "metrics": metrics}
        measured["signatures"] = getattr(task, "signatures", {})
        rundir.write_json(found.dir / "evaluation.json", measured)
    return metrics


def predict(run: str | Path, source: str | Path, top: int = 3, which: str = "best", batch_size: int = 64) -> list[Prediction]:
    """What a run's network says of a file, or of every such file in a folder.

    Args:
        run: its directory, or one of its checkpoints.
        source: a file or a folder.
        top: how many labels for each.
        which: "best" or "last".
        batch_size: files at a time.

    Raises:
        DataError: no such file there, or one that can not be read.
    """
    found = rundir.find(run)
    files = _files(Path(source), ENDINGS[_kind(found)])
    import torch

    tell = {"labels": _label, "masks": _segment}[found.summary.get("answers", "labels")]
    net, preprocess = load(run, which), preprocessing(found)
    results = []
    with torch.inference_mode():
        for start in range(0, len(files), batch_size):
            batch = files[start : start + batch_size]
            results += tell(found, batch, net(torch.stack([preprocess(file) for file in batch])), top)
    return results


def _label(run: Run, files: list[Path], logits: "Tensor", top: int) -> list[Prediction]:
    """The likeliest classes of each file: logits (B, K)."""
    classes = run.summary["classes"]
    best = logits.softmax(1).topk(min(top, len(classes)), dim=1)
    return [
        Prediction(str(file), [classes[index] for index in indices], [round(value, 6) for value in values])
        for file, values, indices in zip(files, best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def _segment(run: Run, files: list[Path], logits: "Tensor", top: int) -> list[Prediction]:
    """The largest classes of each picture, logits (B, K, H, W), and the picture under its mask in RUN/predictions."""
    import torch
    import torch.nn.functional as F

    from dlzoo.data.preprocess import read_image, to_tensor
    from dlzoo.plots.images import save_image
    from dlzoo.plots.masks import overlay, palette

    classes, channels = run.summary["classes"], preprocessing(run).channels
    folder = run.dir / "predictions"
    folder.mkdir(exist_ok=True)
    results = []
    for file, scores in zip(files, logits, strict=True):
        picture = to_tensor(read_image(file, channels)) / 255  # (C, H, W), as large as it is
        scores = F.interpolate(scores[None], picture.shape[1:], mode="bilinear", align_corners=False)[0]
        mask = scores.argmax(0)
        shares = torch.bincount(mask.flatten(), minlength=len(classes)) / mask.numel()
        largest = [index for index in shares.argsort(descending=True, stable=True).tolist() if shares[index]][:top]
        path = folder / f"{re.sub(r'[^0-9A-Za-z.-]+', '_', str(file)).strip('_.')}.png"
        save_image(torch.from_numpy(overlay(picture, mask, palette(len(classes)))).permute(2, 0, 1), path)
        values = [round(shares[index].item(), 6) for index in largest]
        results.append(Prediction(str(file), [classes[index] for index in largest], values, str(path)))
    return results


def preprocessing(run: Run) -> "Preprocess":
    """How the files of a run's data become the network's input; needs no data set."""
    from dlzoo.data.preprocess import Preprocess
    from dlzoo.data.waveforms import WaveformPreprocess

    kinds = {"image": Preprocess, "wave": WaveformPreprocess}
    return kinds[_kind(run)].from_dict(run.summary["preprocess"])


def _kind(run: Run) -> str:
    """What a run was trained on: pictures, unless its preprocessing says otherwise."""
    kind = run.summary["preprocess"].get("kind", "image")
    if kind not in ENDINGS:
        from dlzoo.ending import NEXT

        verb = NEXT.get(run.summary.get("answers", ""), ("",))[0]
        fix = f"dlzoo {verb} {run.dir}" if verb else ""
        raise ConfigError(f"the run is of {kind}, and this takes pictures or recordings", where=str(run.dir), fix=fix)
    return kind


def export(run: str | Path, which: str = "best", overrides: list[str] | None = None) -> tuple[Path, dict[str, Any]]:
    """A run's network as ONNX, compared with torch on 1, 7 and 64 pictures (of a forecast, windows) and on up to 1,000.

    Real test pictures where the data set is at hand, noise where not. One of recordings takes any length, one that gives
    masks any height and width, and each is compared at others too. The file appears only when it computes the same;
    model.onnx.json beside it holds the differences, classes and preprocessing. A run of texts gives two files: see
    `dlzoo.text_export`.

    Args:
        run: its directory, or one of its checkpoints.
        which: "best" or "last".
        overrides: such as data_dir=PATH.

    Returns:
        the file, and what model.onnx.json says.

    Raises:
        NumericalError: the exported model computes something else.
        ConfigError: onnx or onnxruntime is not installed.
    """
    from dlzoo.export.onnx import export_onnx
    from dlzoo.export.verify import verify_onnx

    found = rundir.find(run)
    if (answers := found.summary.get("answers")) in ("text", "translation"):
        from dlzoo import text_export

        write = text_export.export_language_model if answers == "text" else text_export.export_translator
        return write(found, load(run, which), overrides or [])
    net, summary = load(run, which), found.summary
    series = summary["preprocess"].get("kind") == "series"
    if series:
        from dlzoo.forecast import example_windows as examples
    else:
        examples = _test_pictures
    images, kind = examples(found, overrides or [])
    folder = found.dir / "export"
    folder.mkdir(exist_ok=True)
    temporary, path = folder / f".model-{os.getpid()}.onnx", folder / "model.onnx"
    metadata = {"classes": json.dumps(summary["classes"]), "preprocess": json.dumps(summary["preprocess"])}
    try:
        waves, masks = not series and _kind(found) == "wave", summary.get("answers") == "masks"
        free = {2: "samples"} if waves else {2: "height", 3: "width"} if masks else {}
        names = {"input_name": "history", "output_name": "forecast"} if series else {"input_name": "waves"} if waves else {}
        export_onnx(net, images[:2], temporary, metadata=metadata, free=free, **names)
        # large pictures a few at a time: a thousand of 224x224 would take gigabytes
        chunk = 1000 if images[0, 0].numel() <= 64 * 64 else 64
        report = verify_onnx(net, temporary, [*(images[:count] for count in CHECKED_BATCHES), *images.split(chunk)])
        lengths, sizes = {}, {}
        if waves:  # of half, five quarters and twice the length
            for part in (2, 5, 8):
                other = images[:5].repeat(1, 1, 2)[..., : images.shape[2] * part // 4]
                lengths[str(other.shape[2])] = verify_onnx(net, temporary, [other]).max_rel
        if masks:  # parts of the pictures: half as high, half as wide
            for rows, columns in ((1, 2), (2, 1)):
                other = images[:2, :, : images.shape[2] * rows // 2, : images.shape[3] * columns // 2]
                sizes[f"{other.shape[2]}x{other.shape[3]}"] = verify_onnx(net, temporary, [other]).max_rel
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sidecar = {
        "file": path.name,
        "pictures": kind,
        **report.as_dict(),
        **({"lengths": lengths} if lengths else {}),
        **({"sizes": sizes} if sizes else {}),
        "classes": summary["classes"],
        "preprocess": summary["preprocess"],
    }
    rundir.write_json(path.with_name("model.onnx.json"), sidecar)
    return path, sidecar


def _test_pictures(run: Run, overrides: list[str]) -> tuple["Tensor", str]:
    import torch

    from dlzoo.config import run_config

    shape = preprocessing(run)
    try:
        data = zoo.build(run_config(run, overrides)["data"])
        data.prepare_data()
        data.setup("test")
        images = data.test_images(1000)[0]
        kind = f"{len(images)} of the test split"
    except DataError as error:
        images = torch.randn(256, *shape.shape, generator=torch.Generator().manual_seed(0))
        kind = f"noise, for the data is not here: {error.what}"
    return images, kind


def _files(source: Path, endings: tuple[str, ...]) -> list[Path]:
    kind = "pictures" if ".png" in endings else "recordings"
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"there is no {source}", fix=f"a file, or a folder of {kind}")
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in endings and not path.name.startswith("."))
    if not files:
        raise DataError(
            f"{source} holds no {kind}", fix=f"files that end in {', '.join(endings[:4])}{', ...' if endings[4:] else ''}"
        )
    return files
