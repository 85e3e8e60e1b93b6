"""The last thing on the screen: the result, and the commands that go on from it, ready to copy."""

import shlex

from dlzoo import launch
from dlzoo.errors import ConfigError
from dlzoo.rundir import Run, dlzoo_command, further
from dlzoo.targets import flags

__all__ = ["only", "show"]

# the verbs that come next, by how a run's network answers
NEXT = {"labels": ("predict", "export"), "masks": ("predict", "export"), "text": ("generate", "export")}
NEXT |= {"translation": ("translate", "export"), "forecast": ("forecast", "export")}
# the metrics that are shown, the most telling first
SHOWN = ("test/miou", "test/acc", "test/acc_top5", "test/bleu", "test/chrf", "test/mae", "test/rmse", "test/mase", "test/loss")
SHOWN += ("test/ppl", "test/bpc", "val/miou", "val/acc", "val/bleu", "val/mae", "val/loss")


def only(run: Run, answers: str, task: str, experiment: str) -> None:
    """Refuses a run whose network answers in another way, with the verb that is for that one.

    Args:
        run: that a verb was given.
        answers: those that it takes.
        task: what such a run does, in words: "translate".
        experiment: one that makes such a run.

    Raises:
        ConfigError: the run's are others.
    """
    found = run.summary.get("answers", "labels")
    if found == answers:
        return
    example = f"a run such as that of experiment={experiment}"
    fix = f"{dlzoo_command()} {NEXT[found][0]} {run.dir}, or {example}" if found in NEXT else example
    raise ConfigError(f"the run does not {task}: it answers with {found}", where=str(run.dir), fix=fix)


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
    lines = ["  ".join(f"{name} {metrics[name]:.4f}" for name in shown) or "no metrics", *_beside(metrics)]
    seconds, speed = summary["training_seconds"], summary["samples_per_second"]
    if seconds:
        lines.append(
            f"{seconds:.1f} s of training, {speed:,.0f} samples/s, {summary['epochs']} epochs, {summary['steps']:,} steps"
        )
    if summary["edition"]:
        lines.append(f"data: {summary['edition']}")
    where = shlex.quote(str(run.dir))
    examples = [run.dir / f"example.{ending}" for ending in ("png", "wav") if (run.dir / f"example.{ending}").is_file()]
    table = run.dir / "example.csv"
    given = {
        "predict": f" {shlex.quote(str(examples[0]))}" if examples else " FILE",
        "generate": ' "The "',
        "forecast": f" {shlex.quote(str(table))}" if table.is_file() else " FILE.csv",
    }
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


def _beside(metrics: dict[str, float]) -> list[str]:
    """How a forecast stands beside the baselines, which need no network: one line, or none."""
    stage = next((stage for stage in ("test", "val") if f"{stage}/mae_persistence" in metrics), "")
    own = metrics.get(f"{stage}/mae")
    head = f"{stage}/mae_"
    rivals = {name.removeprefix(head): value for name, value in metrics.items() if stage and name.startswith(head)}
    if own is None or not rivals:
        return []
    words = []
    for word, beaten in (("better than", True), ("NOT better than", False)):
        names = [f"{name} {value:.4f}" for name, value in rivals.items() if (own < value) is beaten]
        words += [f"{word} {', '.join(names)}"] if names else []
    return [f"{stage}/mae {'; '.join(words)}"]
