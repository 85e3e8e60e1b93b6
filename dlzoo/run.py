"""From a config to a finished run."""

import contextlib
import logging
import os
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from dlzoo import faults, launch, resume, rundir, signals, targets, zoo
from dlzoo.checkpoints import load_weights
from dlzoo.config import check, compose, hydra_flags, run_config
from dlzoo.errors import CheckpointError, ConfigError, DataError, UnsafeError, polite, suggest
from dlzoo.locks import locked
from dlzoo.logs import log_file, quiet, say
from dlzoo.memory import is_out_of_memory, out_of_memory
from dlzoo.rundir import Run
from dlzoo.signals import Stopped

if TYPE_CHECKING:
    import lightning as L
    from torch import nn

log = logging.getLogger("dlzoo")


def train(cfg: DictConfig | Mapping[str, Any], overrides: Sequence[str] = (), allow: Sequence[str] = ()) -> Run:
    """Trains what a config describes, measures the best weights on the test split, and leaves everything in a directory.

    Args:
        cfg: from `compose`, changed at will.
        overrides: the command line that led to it, for the record.
        allow: packages of yours whose functions and classes the config may call.

    Returns:
        the run: its directory, metrics and curves.

    Raises:
        DlzooError: what the user can put right; each kind has its exit code.
    """
    with targets.allowed(allow):
        return _start(cfg, overrides)


def _start(cfg: DictConfig | Mapping[str, Any], overrides: Sequence[str]) -> Run:
    cfg = OmegaConf.create(OmegaConf.to_container(cfg)) if isinstance(cfg, DictConfig) else OmegaConf.create(dict(cfg))
    if "csv" not in cfg.logger:  # metrics.csv is part of every run
        cfg.logger = {"csv": {"_target_": "dlzoo.callbacks.loggers.CSVLogger", "run_dir": "${run_dir}"}, **cfg.logger}
    config = check(cfg, overrides)
    told = launch.chosen(cfg.runs_dir)  # in every process of a job but the first
    with signals.listening():
        going_on = None if told else resume.going_on(cfg, overrides)
        path = told.run_dir if told else going_on or rundir.create(config, cfg.run_dir)
        cfg.run_dir = str(path)
        try:
            with contextlib.nullcontext() if told else locked(path), log_file(path):
                cfg.ckpt_path = told.ckpt_path if told else resume.checkpoint(cfg.ckpt_path, path if going_on else None)
                config = OmegaConf.to_container(cfg, resolve=True)
                with launch.telling(told or launch.Chosen(path, cfg.ckpt_path), cfg.runs_dir):
                    return _train(config, Run(path), list(overrides), first=not told)
        except (ConfigError, DataError, CheckpointError, UnsafeError):
            if not (told or going_on or (path / "metrics.csv").is_file()):
                import shutil

                shutil.rmtree(path, ignore_errors=True)  # nothing was trained: the same command, put right, may take the name
            raise


def _train(config: dict[str, Any], run: Run, overrides: list[str], first: bool) -> Run:
    quiet()
    import lightning as L

    from dlzoo.weights import begin  # it imports torch

    started = time.monotonic()
    L.seed_everything(config["seed"], workers=True, verbose=False)
    task, data, trainer = build(config)
    data.prepare_data()  # before the trainer starts: what the data are belongs in the summary, and a missing file stops us here
    data.setup("fit")
    if config["ckpt_path"]:  # another model's, or of other data: told before anything changes
        for change in resume.differences(Path(config["ckpt_path"]), config):
            log.info("changed on resume: %s", change)
        load_weights(task.net, Path(config["ckpt_path"]), config["model"])
    elif (line := begin(task.net, config)) and trainer.is_global_zero:
        log.info(line)
    if first:
        rundir.write_text(run.dir / "config.yaml", OmegaConf.to_yaml(config))
        rundir.write_text(run.dir / "overrides.yaml", OmegaConf.to_yaml(overrides) if overrides else "[]\n")
    summary = {
        "name": config["name"],
        "status": "running",
        "model": config["model"].get("timm_name") or config["model"]["_target_"].rsplit(".", 1)[-1],
        "parameters": sum(parameter.numel() for parameter in task.net.parameters() if parameter.requires_grad),
        "edition": data.edition,
        "classes": list(data.classes),
        "preprocess": data.preprocess.as_dict(),
        "answers": getattr(task, "answers", ""),
        "seed": config["seed"],
        "batch_size": data.batch_size,
        "precision": str(trainer.precision),
        "devices": trainer.world_size,
    }
    try:
        if trainer.is_global_zero and first:
            rundir.write_json(run.dir / "environment.json", rundir.environment())
            rundir.write_json(run.dir / "summary.json", summary)
            say(f"{config['name']}: {summary['model']}, {summary['parameters']:,} parameters, {_device(trainer)} -> {run.dir}")
        trainer.fit(task, datamodule=data, ckpt_path=config["ckpt_path"], weights_only=True)
        metrics = dict(getattr(trainer.checkpoint_callback, "metrics", {}))  # of the newest validation, this process's or not
        metrics |= {name: value.item() for name, value in trainer.callback_metrics.items()}
        report = next((callback for callback in trainer.callbacks if hasattr(callback, "samples_per_second")), None)
        # before the test: it loads the best checkpoint, and the clock that stands in it
        took = {
            "training_seconds": round(report.seconds, 2) if report else None,
            "samples_per_second": round(report.samples_per_second, 1) if report else None,
        }
        if config["test"]:
            best = trainer.checkpoint_callback.best_model_path if trainer.checkpoint_callback else ""
            trainer.test(task, datamodule=data, ckpt_path=best or None, verbose=False, weights_only=True if best else None)
            metrics |= {name: value.item() for name, value in trainer.callback_metrics.items()}
    except BaseException as error:
        # with signals that are not ours (in a thread) Lightning ends a Ctrl-C by SystemExit
        stopped = error if isinstance(error, Stopped) else None
        if isinstance(error, KeyboardInterrupt | SystemExit):
            stopped = Stopped(signal.SIGINT)
        if trainer.is_global_zero:
            rundir.write_json(run.dir / "summary.json", summary | {"status": "interrupted" if stopped else "failed"})
            if stopped and any((run.dir / "checkpoints").glob("*.ckpt")):
                words = " ".join([rundir.dlzoo_command(), "resume", shlex.quote(str(run.dir)), *targets.flags()])
                say(f"\nstopped by {stopped}; to go on: {words}")
        if stopped is not None and stopped is not error:
            raise stopped from None
        for loader in (trainer.train_dataloader, trainer.val_dataloaders, trainer.test_dataloaders):
            if fault := getattr(loader, "fault", lambda error: None)(error):
                raise fault from error
        if is_out_of_memory(error):
            raise out_of_memory(error, config, trainer.global_step) from error
        raise
    summary |= {
        "status": "finished",
        "metrics": metrics,
        "signatures": getattr(task, "signatures", {}),  # what some of them depend on
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "total_seconds": round(time.monotonic() - started, 2),
        **took,
    }
    if trainer.is_global_zero:
        rundir.write_json(run.dir / "summary.json", summary)
    return run


def build(config: dict[str, Any]) -> tuple["L.LightningModule", "L.LightningDataModule", "L.Trainer"]:
    """Builds what a checked, resolved config names, and starts nothing.

    Raises:
        ConfigError: a part refuses its arguments, or the machine has not what the trainer asks for.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from dlzoo.callbacks import lean

    trainer_node = dict(config["trainer"])
    trainer_node["precision"] = precision(trainer_node)
    if (
        str(trainer_node["precision"]).startswith("16")
        and trainer_node["gradient_clip_val"]
        and config["optimizer"].get("fused")
    ):
        # a fused optimizer unscales the gradients itself, after they would have been clipped
        log.info("optimizer.fused is off: in fp16 the gradients are clipped before the update")
        config = {**config, "optimizer": {**config["optimizer"], "fused": False}}
    data = zoo.build(config["data"])
    net = zoo.build(zoo.without_published(config["model"]) if config["ckpt_path"] else config["model"])
    prepare_network(net, config)
    task = zoo.build(
        {**config["task"], "net": net, "optimizer": zoo.build(config["optimizer"]), "scheduler": zoo.build(config["scheduler"])}
    )
    # without validation there is nothing to monitor: the last weights are the best there are
    validates = data.validates and trainer_node["limit_val_batches"] != 0
    metric = config["optimized_metric"]
    if validates and metric not in task.logged:  # Lightning would find out when the first epoch is over
        known = suggest(metric, task.logged) or f"one of {', '.join(task.logged)}"
        raise ConfigError(f"the task logs no {metric!r}", where=f"optimized_metric={metric}", fix=known)
    watched = dict(config["callbacks"])
    if not validates:
        watched = {name: node for name, node in watched.items() if name == "checkpoint" or not node.get("monitor")}
        watched = {name: {**node, "monitor": None} if node.get("monitor") else node for name, node in watched.items()}
    callbacks = list(zoo.build(watched).values())
    if os.environ.get(faults.VARIABLE):
        from dlzoo.callbacks.faulty import Faulty

        callbacks.insert(0, Faulty())
    lean.leave_out_empty_hooks(callbacks)
    loggers = list(zoo.build(config["logger"]).values())
    plain: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "use_distributed_sampler": False}
    plain["profiler"] = trainer_node["profiler"] or lean.NoProfiler()
    try:
        trainer = zoo.build(
            {**trainer_node, **plain, "callbacks": callbacks, "logger": loggers, "default_root_dir": config["run_dir"]}
        )
    except MisconfigurationException as error:
        raise ConfigError(str(error).splitlines()[0], where="trainer") from error
    return task, data, trainer


def prepare_network(net: "nn.Module", config: Mapping[str, Any]) -> None:
    """Memory order and compilation, in place, so that the names in a checkpoint stay clean."""
    import torch

    if config["channels_last"]:
        net.to(memory_format=torch.channels_last)
    if config["compile"]:
        net.compile()


def precision(trainer: Mapping[str, Any]) -> str | int:
    """The precision that a trainer's config means on this machine, native or not at all.

    Raises:
        ConfigError: a GPU that is not there, fp16 on a CPU, bf16 on a GPU that would only emulate it.
    """
    import torch

    asked, accelerator = trainer["precision"], trainer["accelerator"]
    cuda = torch.cuda.is_available()
    if accelerator in ("gpu", "cuda") and not cuda:
        raise ConfigError("there is no CUDA GPU here", where="trainer.accelerator", fix="trainer=cpu_fast, or trainer=auto")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("there is no Apple GPU here", where="trainer.accelerator", fix="trainer=cpu, or trainer=auto")
    on_gpu = cuda and accelerator in ("auto", "gpu", "cuda")
    capability = torch.cuda.get_device_capability() if on_gpu else (0, 0)
    if asked == "auto":
        return "bf16-mixed" if capability >= (8, 0) else "16-mixed" if capability >= (7, 0) else 32
    if str(asked).startswith("16") and accelerator in ("auto", "cpu") and not on_gpu and not torch.backends.mps.is_available():
        raise ConfigError(
            "fp16 does not run on a CPU", where=f"trainer.precision={asked}", fix="trainer.precision=bf16-mixed, or 32"
        )
    if str(asked).startswith("bf16") and on_gpu and capability < (8, 0):
        name = torch.cuda.get_device_name()
        raise ConfigError(
            f"{name} has no bf16 of its own (compute capability {capability[0]}.{capability[1]}); it would be emulated, slowly",
            where=f"trainer.precision={asked}",
            fix="trainer.precision=16-mixed",
        )
    return asked


def prepare_evaluation(
    run: Run, overrides: Sequence[str]
) -> tuple["L.LightningModule", "L.LightningDataModule", "L.Trainer", dict[str, Any]]:
    """The parts of a finished run, for measuring its weights: no logger, no checkpoints."""
    quiet()
    config = run_config(run, overrides)
    config["callbacks"] = {key: node for key, node in config["callbacks"].items() if key == "report"}
    config["logger"] = {}
    config["model"] = zoo.without_published(config["model"])
    task, data, trainer = build(config)
    return task, data, trainer, config


def go_on(run: Run, overrides: Sequence[str] = ()) -> Run:
    """Goes on with a run from its newest checkpoint that is whole, in its own directory.

    Args:
        run: the run.
        overrides: such as trainer.max_epochs=40, which a finished run needs to go further.

    Raises:
        ConfigError: it has finished and nothing says how much further, or the model, the data or the seed would be others.
        CheckpointError: none of its checkpoints can be read.
    """
    config = run_config(run, overrides) | {"ckpt_path": "auto"}
    limits = config["trainer"]
    if run.status == "finished":
        done = run.summary
        for what, key in (("epochs", "max_epochs"), ("steps", "max_steps")):
            if 0 < (limits[key] or 0) <= done[what]:
                raise ConfigError(
                    f"the run has finished its {limits[key]} {what}",
                    where=str(run.dir),
                    fix=f"{rundir.dlzoo_command()} resume {run.dir} {rundir.further(limits)}",
                )
    return train(config, [*run.overrides, *overrides])


def _device(trainer: "L.Trainer") -> str:
    import torch

    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    count = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
    return f"{count}{name} {trainer.precision}"


def main(arguments: Sequence[str]) -> Run | None:
    """`train.py` and `dlzoo train`: overrides, and Hydra's own flags (--cfg, --info, --multirun, --config-dir, completion).

    Returns:
        the finished run; None where there was nothing to train, or more than one run.
    """
    from hydra._internal.utils import get_args_parser

    parser = polite(get_args_parser())
    parser.prog = "dlzoo train"
    args = parser.parse_intermixed_args(list(arguments))  # flags may stand between the overrides
    if args.experimental_rerun:  # Hydra would read a pickle
        raise UnsafeError("a config is not read from a pickle", where="--experimental-rerun", fix="dlzoo resume RUN")
    if args.config_name or args.config_path:
        raise ConfigError(
            "the config is always train.yaml", where="--config-name", fix="--config-dir FOLDER, with an experiment of yours"
        )
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        hydra_flags(args, parser)
        return None
    if args.multirun:
        from dlzoo import sweep

        sweep.run(*sweep.begin(args.overrides, args.config_dir))
        return None
    if search := [word for word in args.overrides if word.startswith("hparams_search")]:
        raise ConfigError("a search is more than one run", where=search[0], fix=f"dlzoo sweep {search[0]}")
    return train(compose(*args.overrides, config_dir=args.config_dir), args.overrides)
