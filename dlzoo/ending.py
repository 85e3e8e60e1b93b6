"""The last thing on the screen: the result, and the commands that go on from it, ready to copy."""

import shlex

from dlzoo import launch
from dlzoo.rundir import Run, dlzoo_command, further
from dlzoo.targets import flags

__all__ = ["show"]

# the verbs that come next, by how a run's network answers
NEXT = {"labels": ("predict", "export"), "masks": ("predict", "export")}
NEXT |= {"text": ("generate", "export"), "translation": ("translate", "export")}
# the metrics that are shown, the most telling first
SHOWN = ("test/miou", "test/acc", "test/acc_top5", "test/bleu", "test/chrf", "test/loss", "test/ppl", "test/bpc")
SHOWN += ("val/miou", "val/acc", "val/bleu", "val/loss")


def show(run: Run) -> None:
    """Prints it; of several processes only the first does."""
    from rich.box import HORIZONTALS  # no sides: what is in it can be copied line by line
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    if launch.global_rank():  # one of several processes speaks
        return
    summary, config, me = run.summary, run.config, dlzoo_command()
    metrics = summary["metrics"]
    shown = [name for name in SHOWN if name in metrics]
    lines = ["  ".join(f"{name} {metrics[name]:.4f}" for name in shown) or "no metrics"]
    seconds, speed = summary["training_seconds"], summary["samples_per_second"]
    if seconds:
        lines.append(
            f"{seconds:.1f} s of training, {speed:,.0f} samples/s, {summary['epochs']} epochs, {summary['steps']:,} steps"
        )
    if summary["edition"]:
        lines.append(f"data: {summary['edition']}")
    where = shlex.quote(str(run.dir))
    examples = [run.dir / f"example.{ending}" for ending in ("png", "wav") if (run.dir / f"example.{ending}").is_file()]
    given = {"predict": f" {shlex.quote(str(examples[0]))}" if examples else " FILE", "generate": ' "The "'}
    allow = "".join(f" {word}" for word in flags())
    lines += [
        "",
        f"resume    {me} resume {where} {further(config['trainer'])}{allow}",
        f"evaluate  {me} evaluate {where}{allow}",
    ]
    lines += [
        f"{verb:9} {me} {verb} {where}{given.get(verb, '')}{allow}" for verb in NEXT.get(summary.get("answers", "labels"), ())
    ]
    console = Console(highlight=False)
    if console.is_terminal:
        text = Text("\n".join(lines), no_wrap=True, overflow="ignore")
        # a box no narrower than its commands: a wrapped command can not be copied
        width = max(console.width, max(map(len, lines)) + 4)
        console.print(Panel(text, title=str(run.dir), box=HORIZONTALS, expand=False), width=width, crop=False)
    else:
        print("\n".join([f"-- {run.dir}", *lines]), flush=True)
