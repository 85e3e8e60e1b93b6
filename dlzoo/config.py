"""From a command line to a checked config: the names, types and ranges of everything, before anything heavy is imported.

With run.py and sweep.py, the only code that knows Hydra.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dlzoo import mistakes, redact, schema, targets, zoo
from dlzoo.errors import ConfigError, DlzooError, UnsafeError, suggest
from dlzoo.mistakes import GROUPS, config_keys, first_line, key_of, origin
from dlzoo.rundir import Run


def compose(*overrides: str, config_dir: str | Path | None = None, allow: Sequence[str] = ()) -> DictConfig:
    """The config that a command line with these overrides would run, checked. Hydra's global state is not touched.

    Args:
        overrides: as on the command line: "experiment=digits_resnet", "trainer.max_epochs=2".
        config_dir: a folder of your own configs, searched before the zoo's.
        allow: packages of yours whose functions and classes the config may call; `train` takes the same.

    Raises:
        ConfigError: a name, type or value that is wrong.
        UnsafeError: a target that a config may not call, or a secret in it.
    """
    with targets.allowed(allow):
        cfg = _compose(list(overrides), config_dir)
        check(cfg, overrides, config_dir)
    return cfg


def run_config(run: Run, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The config of a run that was made before, with values changed by "key=value"; a relative data_dir of its own gives way to
    DLZOO_DATA, so that a run moved to another machine finds its data there.

    Raises:
        ConfigError: an override that the config has no key for.
    """
    stored = run.config
    cfg = OmegaConf.create(stored)
    before = cfg.data_dir
    given = dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)
    if "data_dir" not in given and not Path(before).is_dir() and "DLZOO_DATA" in os.environ:
        given["data_dir"] = os.environ["DLZOO_DATA"]
    cfg.run_dir = str(run.dir)
    known = config_keys(OmegaConf.to_container(cfg))
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"the config has no key {key!r}", where=f"{key}={value}", fix=suggest(key, known))
        OmegaConf.update(cfg, key, OmegaConf.create({"value": OmegaConf.create(f"value: {value}")["value"]})["value"])
    # config.yaml is resolved: what stood for ${data_dir} and ${run_dir} follows them
    config = _replace(OmegaConf.to_container(cfg), {before: cfg.data_dir, stored["run_dir"]: str(run.dir)})
    _refuse_unsafe(config, overrides, lambda key: f"{key} in {run.dir / 'config.yaml'}")
    found = list(schema.faults(config))
    if found:
        raise ConfigError(found[0].text, where=found[0].key, fix=found[0].hint)
    return config


def search_path(config_dir: str | Path | None = None) -> ConfigSearchPathImpl:
    """Hydra's search path: its own defaults, the user's folders, the zoo's."""
    path = ConfigSearchPathImpl()
    path.append("hydra", "pkg://hydra.conf")
    if config_dir and not Path(config_dir).is_dir():
        raise ConfigError(f"there is no folder {config_dir}", where="--config-dir")
    for folder in zoo.config_dirs(config_dir):
        path.append("main" if folder == zoo.config_dir() else "user", f"file://{folder}")
    path.append("schema", "structured://")
    return path


def check(cfg: DictConfig, overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> dict[str, Any]:
    """The config as plain values, every name, type and range checked; imports nothing heavy.

    Raises:
        ConfigError: the first thing that is wrong, and how many more there are.
        DataError: a data folder that the config reads its classes from is missing.
    """
    try:
        if cfg.run_dir is None:  # made when the run starts; what is built from it has to be a text by now
            cfg = OmegaConf.merge(cfg, {"run_dir": f"{cfg.runs_dir}/{cfg.name}/new"})
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        cause = error.__cause__ or error.__context__
        while cause is not None and not isinstance(cause, DlzooError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise cause from None
        where = str(getattr(error, "full_key", "") or "")
        if missing := re.search(r"Interpolation key 'data\.(\w+)' not found", str(error)):
            what = f"the data have no {missing[1]!r}, which the task or the model asks for"
            raise ConfigError(what, where=where, fix=_tasks_for(cfg.data)) from error
        raise ConfigError(first_line(error), where=where) from error
    _refuse_unsafe(config, overrides, lambda key: origin(key, overrides, config_dir))
    found = list(schema.faults(config))
    if found:
        first = found[0]
        more = f" ({len(found) - 1} more like it)" if len(found) > 1 else ""
        raise ConfigError(first.text + more, where=origin(first.key, overrides, config_dir), fix=first.hint)
    return config


def _compose(overrides: list[str], config_dir: str | Path | None) -> DictConfig:
    targets.check_words(overrides, zoo.config_dirs(config_dir))
    try:
        cfg = _load(overrides, config_dir)
    except (HydraException, OmegaConfBaseException, ValueError, YAMLError) as error:  # ValueError: Hydra's, of group=null
        raise _explain(error, overrides, config_dir) from error
    targets.check_hydra(OmegaConf.to_container(cfg.hydra))
    choices = cfg.hydra.runtime.choices
    with open_dict(cfg):
        del cfg["hydra"]
        cfg.pop("hparams_search", None)  # no part of a run: sweep.py reads it
        if "${hydra:" in str(OmegaConf.to_container(cfg)["name"]):  # train.yaml's own; a name of the user's may refer to others
            cfg.name = _name(choices, overrides)
    return cfg


def _tasks_for(data: Mapping[str, Any]) -> str:
    """What to type for these data: the tasks that ask only for what they have."""
    asked = {
        name: set(re.findall(r"\$\{data\.(\w+)\}", (zoo.config_dir() / "task" / f"{name}.yaml").read_text(encoding="utf-8")))
        for name in zoo.list_configs("task")
        if (zoo.config_dir() / "task" / f"{name}.yaml").is_file()
    }
    found = [f"task={name}" for name, keys in asked.items() if keys and keys <= set(data)]
    return f"{' or '.join(found)}, and a model for it" if found else ""


def search_options(overrides: Sequence[str], config_dir: str | Path | None = None) -> dict[str, Any]:
    """The hparams_search of a command line, named after its file unless it has a name of its own.

    Raises:
        ConfigError: a name that is wrong.
    """
    targets.check_words(overrides, zoo.config_dirs(config_dir))
    try:
        cfg = _load(list(overrides), config_dir)
        choice = cfg.hydra.runtime.choices["hparams_search"]
        options = OmegaConf.to_container(cfg.hparams_search)
    except (HydraException, OmegaConfBaseException, ValueError, YAMLError) as error:
        raise _explain(error, overrides, config_dir) from error
    return options | {"name": options.get("name") or choice}


def _name(choices: Mapping[str, str], overrides: Sequence[str]) -> str:
    """The experiment; where none was asked for and data or model were exchanged, <data>_<model>."""
    asked = {key_of(override) for override in overrides}
    exchanged = "experiment" not in asked and asked & {"data", "model"}
    return f"{choices.get('data')}_{choices.get('model')}" if exchanged else choices["experiment"]


def loader(config_dir: str | Path | None = None) -> ConfigLoaderImpl:
    """What reads the config tree."""
    Plugins.instance()  # registers the sources that the search path names
    return ConfigLoaderImpl(search_path(config_dir))


def _load(overrides: list[str], config_dir: str | Path | None, mode: RunMode = RunMode.RUN) -> DictConfig:
    return loader(config_dir).load_configuration("train", overrides, run_mode=mode, from_shell=False)


def _explain(error: Exception, overrides: Sequence[str], config_dir: str | Path | None) -> DlzooError:
    return mistakes.explain(error, overrides, config_dir, lambda words: OmegaConf.to_container(_load(words, config_dir)))


def _replace(node: Any, words: Mapping[str, str]) -> Any:
    """Text values that are one of `words`, or a path below one, with that beginning exchanged."""
    if isinstance(node, Mapping):
        return {key: _replace(value, words) for key, value in node.items()}
    if isinstance(node, list):
        return [_replace(value, words) for value in node]
    if isinstance(node, str):
        for old, new in words.items():
            if node == old or node.startswith(f"{old}/"):
                return new + node.removeprefix(old)
    return node


def _targets(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every `_target_`, with its dotted key."""
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for name, value in pairs:
        path = f"{key}.{name}" if key else str(name)
        if name == "_target_":
            yield path, value
        yield from _targets(value, path)


def _refuse_unsafe(config: Mapping[str, Any], overrides: Sequence[str], origin: Callable[[str], str]) -> None:
    """Refuses targets that are not allowed, and secrets: a run directory keeps the config.

    Raises:
        UnsafeError: the config has one.
    """
    for key, target in _targets(config):
        try:
            targets.check_target(target)
        except DlzooError as error:
            raise type(error)(error.what, where=origin(key), safe=error.safe, fix=error.fix) from None
    if found := redact.secret_in(config):
        raise UnsafeError(
            f"{found[0]} holds {found[1]}, and a config is written into the run directory",
            where=redact.redact(origin(found[0])),
            safe="nothing was run or written",
            fix="leave it in the environment, where the library that needs it looks for it",
        )


def _count_folders(path: str) -> int:
    """${count_folders:PATH}: how many class folders there are, so that a data set of your own needs no number."""
    from dlzoo.data.folder import class_names
    from dlzoo.data.unpacked import opened

    return len(class_names(opened(Path(path))))


def _series_features(targets: Any, inputs: Any, texts: Any, masks: Any, calendar: Any) -> int:
    """${series_features:...}: how many numbers a network is shown of each row of a series, so that none has to be counted."""
    from dlzoo.data.columns import width

    return width(targets, inputs, texts, masks, calendar)


OmegaConf.register_new_resolver("count_folders", _count_folders, replace=True)
OmegaConf.register_new_resolver("count", len, replace=True)
OmegaConf.register_new_resolver("series_features", _series_features, replace=True)


def hydra_flags(args: Any, parser: Any) -> None:
    """What Hydra does itself: showing the config, and completion.

    Args:
        args: the parsed command line.
        parser: what parsed it.

    Raises:
        ConfigError: as for `compose`.
    """
    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra

    try:
        Plugins.instance()
        targets.check_words(args.overrides, zoo.config_dirs(args.config_dir))
        if args.cfg or args.info or args.multirun:
            plain = _load(list(args.overrides), args.config_dir, RunMode.MULTIRUN)
            targets.check_hydra(OmegaConf.to_container(plain.hydra))
        hydra = Hydra.create_main_hydra2("train", search_path(args.config_dir))
        if args.help:
            print(HELP)
        elif args.hydra_help:
            hydra.hydra_help("train", parser, args)
        elif args.cfg:
            hydra.show_cfg("train", args.overrides, args.cfg, args.package, args.resolve)
        elif args.info:
            hydra.show_info(args.info, "train", args.overrides)
        else:
            hydra.shell_completion("train", args.overrides)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise _explain(error, args.overrides, args.config_dir) from error
    finally:
        GlobalHydra.instance().clear()


HELP = (
    """Train a model: python train.py [experiment=NAME] [group=choice] [key=value] ...

  python train.py                                   handwritten digits, no download
  python train.py experiment=cifar10_resnet         an experiment: see `dlzoo list experiments`
  python train.py experiment=cifar10_resnet trainer=cpu_fast trainer.max_epochs=6 seed=1
  python train.py debug=smoke                       everything once, in seconds (overfit, profile)
  python train.py --cfg job [--resolve]             the config, without running it
  python train.py -m seed=1,2,3                     one run after the other; a search: dlzoo sweep --help

groups: """
    + ", ".join(GROUPS)
    + """
flags:  --cfg job|hydra|all, --resolve, --package KEY, --info, -m, --config-dir FOLDER, --allow PACKAGE,
        --shell-completion, --hydra-help
"""
)
