"""From a command line to a checked config: the names, types and ranges of everything, before anything heavy is imported.

With run.py and sweep.py, the only code that knows Hydra.
"""

import contextlib
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

from dlzoo import schema, zoo
from dlzoo.errors import ConfigError, DlzooError, suggest
from dlzoo.rundir import Run

GROUPS = ("model", "data", "task", "optimizer", "scheduler", "trainer", "callbacks", "logger", "experiment", "debug")


def compose(*overrides: str, config_dir: str | Path | None = None) -> DictConfig:
    """The config that a command line with these overrides would run, checked. Hydra's global state is not touched.

    Args:
        overrides: as on the command line: "experiment=digits_resnet", "trainer.max_epochs=2".
        config_dir: a folder of your own configs, searched before the zoo's.

    Raises:
        ConfigError: a name, type or value that is wrong.
        UnsafeError: a target that a config may not call.
    """
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
        raise ConfigError(_first_line(error), where=str(getattr(error, "full_key", "") or "")) from error
    for target in _targets(config):
        zoo.check_target(target)
    found = list(schema.faults(config))
    if found:
        first = found[0]
        more = f" ({len(found) - 1} more like it)" if len(found) > 1 else ""
        raise ConfigError(first.text + more, where=_origin(first.key, overrides, config_dir), fix=first.hint)
    return config


def _compose(overrides: list[str], config_dir: str | Path | None) -> DictConfig:
    try:
        cfg = _load(overrides, config_dir)
    except (HydraException, OmegaConfBaseException, ValueError, YAMLError) as error:  # ValueError: Hydra's, of group=null
        raise _explain(error, overrides, config_dir) from error
    choices = cfg.hydra.runtime.choices
    with open_dict(cfg):
        del cfg["hydra"]
        if "${hydra:" in str(OmegaConf.to_container(cfg)["name"]):  # train.yaml's own; a name of the user's may refer to others
            cfg.name = _name(choices, overrides)
    return cfg


def _name(choices: Mapping[str, str], overrides: Sequence[str]) -> str:
    """The experiment; where none was asked for and data or model were exchanged, <data>_<model>."""
    asked = {_key(override) for override in overrides}
    exchanged = "experiment" not in asked and asked & {"data", "model"}
    return f"{choices.get('data')}_{choices.get('model')}" if exchanged else choices["experiment"]


def _load(overrides: list[str], config_dir: str | Path | None) -> DictConfig:
    Plugins.instance()  # registers the sources that the search path names
    loader = ConfigLoaderImpl(search_path(config_dir))
    return loader.load_configuration("train", overrides, run_mode=RunMode.RUN, from_shell=False)


def _explain(error: Exception, overrides: Sequence[str], config_dir: str | Path | None) -> ConfigError:
    """Hydra's words in ours: what is wrong, which override, and the nearest right name."""
    text = str(error)
    if match := re.search(r"Could not (?:find|load) '([\w./-]+)/([^'/]+)'", text):
        group, name = match.groups()
        known = zoo.list_configs(group, extra=config_dir)
        hint = suggest(name, known) or f"{group} can be: {', '.join(known[:12])}{', ...' if len(known) > 12 else ''}"
        return ConfigError(f"there is no {group} {name!r}", where=_override(group, overrides), fix=hint)
    if match := re.search(r"Could not (?:override|append to) '([^'=]+)|Key '([^']+)' is not in struct", text):
        key = match[1] or match[2]
        top = [*GROUPS, *schema.dataclass_parameters(schema.Config)]
        if "." not in key and (near := suggest(key, top)):  # told without composing a second time
            return ConfigError(f"the config has no key {key!r}", where=_override(key, overrides), fix=near)
        with contextlib.suppress(Exception):
            rest = [override for override in overrides if _key(override) != key]
            cfg = _load(rest, config_dir)
            parent, _, leaf = key.rpartition(".")
            if parent and leaf in (schema.parameters_of(str(OmegaConf.select(cfg, f"{parent}._target_"))) or ()):
                return ConfigError(f"no config sets {key!r} yet", where=key, fix=f"+{_override(key, overrides)}")
            known = config_keys(OmegaConf.to_container(cfg))
            near = suggest(key, [*known, *GROUPS]) or suggest(key.rsplit(".", 1)[-1], {k.rsplit(".", 1)[-1] for k in known})
            return ConfigError(
                f"the config has no key {key!r}", where=_override(key, overrides), fix=near or "train.py --cfg job"
            )
        return ConfigError(f"the config has no key {key!r}", where=_override(key, overrides), fix="train.py --cfg job")
    return ConfigError(
        _first_line(error), where=" ".join(overrides), fix="key=value, in quotes where the shell would eat a sign"
    )


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


def config_keys(node: Any, prefix: str = "") -> list[str]:
    """Every dotted key of a config."""
    if not isinstance(node, Mapping):
        return [prefix]
    return ([prefix] if prefix else []) + [
        key for name, value in node.items() for key in config_keys(value, f"{prefix}.{name}".lstrip("."))
    ]


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    for value in node if isinstance(node, list) else ():
        yield from _targets(value)


def _key(override: str) -> str:
    return override.lstrip("+~").split("=", 1)[0].split("@", 1)[0]


def _override(key: str, overrides: Sequence[str]) -> str:
    """The override that names `key` or something in it."""
    return next((override for override in overrides if _key(override) == key or _key(override).startswith(f"{key}.")), key)


def _origin(key: str, overrides: Sequence[str], config_dir: str | Path | None) -> str:
    """Where the value of a key was set: the override, else the file and line."""
    for override in reversed(overrides):
        if _key(override) == key:
            return f"the command line, {override}"
    leaf = re.compile(rf"^\s*{re.escape(key.rsplit('.', 1)[-1])}\s*:")
    choices = dict(override.split("=", 1) for override in overrides if "=" in override)
    group = key.split(".", 1)[0]
    for folder in zoo.config_dirs(config_dir):
        files = [folder / "experiment" / f"{choices.get('experiment', 'digits_resnet')}.yaml"]
        files += [folder / group / f"{choices[group]}.yaml"] if group in choices else sorted((folder / group).glob("*.yaml"))
        for path in [*files, folder / "train.yaml"]:
            if path.is_file():
                for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                    if leaf.match(line):
                        return f"{key}, {os.path.relpath(path)} line {number}"
    return key


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _count_folders(path: str) -> int:
    """${count_folders:PATH}: how many class folders there are, so that a data set of your own needs no number."""
    from dlzoo.data.folder import class_names

    return len(class_names(Path(path)))


OmegaConf.register_new_resolver("count_folders", _count_folders, replace=True)


def hydra_flags(args: Any, parser: Any, job: Callable[[DictConfig, list[str]], Any]) -> None:
    """What Hydra does itself: showing the config, completion, and the jobs of a multirun one after the other.

    Args:
        args: the parsed command line.
        parser: what parsed it.
        job: runs one config of a multirun, given its overrides, and returns its optimized metric.

    Raises:
        ConfigError: as for `compose`.
    """
    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra

    def run_job(cfg: DictConfig) -> Any:
        from hydra.core.hydra_config import HydraConfig

        given = list(HydraConfig.get().overrides.task)
        with open_dict(cfg):
            cfg.pop("hydra", None)
            if "${hydra:" in str(OmegaConf.to_container(cfg)["name"]):
                cfg.name = _name(HydraConfig.get().runtime.choices, given)
        check(cfg, given, args.config_dir)
        return job(cfg, given)

    try:
        Plugins.instance()
        hydra = Hydra.create_main_hydra2("train", search_path(args.config_dir))
        if args.help:
            print(HELP)
        elif args.hydra_help:
            hydra.hydra_help("train", parser, args)
        elif args.cfg:
            hydra.show_cfg("train", args.overrides, args.cfg, args.package, args.resolve)
        elif args.info:
            hydra.show_info(args.info, "train", args.overrides)
        elif args.shell_completion:
            hydra.shell_completion("train", args.overrides)
        else:
            hydra.multirun("train", run_job, args.overrides)
    except (HydraException, OmegaConfBaseException) as error:
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
  python train.py -m seed=1,2,3                     one run after the other

groups: """
    + ", ".join(GROUPS)
    + """
flags:  --cfg job|hydra|all, --resolve, --package KEY, --info, -m, --config-dir FOLDER, --shell-completion, --hydra-help
"""
)
