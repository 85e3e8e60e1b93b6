"""`dlzoo doctor`: what this machine has and what is wrong with it, as a block to paste into an issue.

Each line is what was looked at, `ok`, `note` or `fix`, what was found, and for a fix what to do. Nothing here prints the value
of an environment variable that could hold a secret.
"""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from dlzoo import rundir, zoo
from dlzoo.redact import redact

GB = 1e9
STOLEN = {"lightning": {"2.6.2", "2.6.3"}, "ultralytics": {"8.3.41", "8.3.42", "8.3.45", "8.3.46"}}  # releases with malware
NEEDED = {"torch": (2, 11), "lightning": (2, 6), "hydra-core": (1, 3), "omegaconf": (2, 3), "safetensors": (0, 6)}
EXTRAS = {  # an extra of dlzoo: the packages that it brings, by the names that are imported
    "onnx": ("onnx", "onnxruntime"),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "sweep": ("optuna",),
    "deepspeed": ("deepspeed",),
    "text": ("transformers", "tokenizers", "sacrebleu"),
    "audio": ("torchaudio", "soundfile"),
    "tensorrt": ("tensorrt",),
}
DATA = {  # a data set: the file or folder that shows that it is there
    "mnist": ("mnist/*", "MNIST/raw/*"),
    "fashion_mnist": ("fashion_mnist/*", "FashionMNIST/raw/*"),
    "cifar10": ("cifar10/*", "cifar-10-*"),
    "cifar100": ("cifar100/*", "cifar-100-*"),
    "spoken_digits": ("free_spoken_digits/*",),
    "speech_commands": ("speech_commands/*", "SpeechCommands/*"),
}


@dataclass(frozen=True)
class Line:
    """One thing that was looked at.

    Args:
        what: its name.
        state: "ok"; "note" for what is worth knowing; "fix" for what will not work.
        found: what was found.
        fix: what to do about it.
    """

    what: str
    state: str
    found: str
    fix: str = ""

    def __str__(self) -> str:
        return redact(f"{self.what:15} {self.state:5} {self.found}{'  -> ' + self.fix if self.fix else ''}")


def examine() -> Iterator[Line]:
    """Looks at everything, one line after the other; what can not be looked at is a line too, never an error."""
    for look in (
        _python,
        _packages,
        _extras,
        _devices,
        _threads,
        _memory,
        _shared_memory,
        _disk,
        _data,
        _cache,
        _loggers,
        _network,
    ):
        try:
            yield from look()
        except Exception as error:  # a broken driver or package is exactly what one calls the doctor for
            yield Line(
                look.__name__.strip("_"), "fix", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )


def _python() -> Iterator[Line]:
    fine = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Line("python", "ok" if fine else "fix", platform.python_version(), "" if fine else "3.11, 3.12 or 3.13")
    here = rundir.environment()
    commit = here["commit"]
    yield Line("system", "ok", f"{platform.platform()}, {here['processor'] or platform.machine()}")
    yield Line("dlzoo", "ok", f"{_version('dlzoo') or 'from a folder'}{', commit ' + commit if commit else ''}")


def _packages() -> Iterator[Line]:
    for name in (
        "torch",
        "torchvision",
        "lightning",
        "torchmetrics",
        "hydra-core",
        "omegaconf",
        "numpy",
        "timm",
        "safetensors",
    ):
        version = _version(name)
        if version is None:
            yield Line(name, "fix", "is not installed", f"pip install {name}")
        elif version in STOLEN.get(name, ()):
            yield Line(
                name, "fix", f"{version} STEALS CREDENTIALS when it is imported", f"pip install -U {name}; change your keys"
            )
        elif name in NEEDED and _numbers(version) < NEEDED[name]:
            least = ".".join(map(str, NEEDED[name]))
            yield Line(name, "fix", f"{version}, and {least} is needed", f"pip install -U '{name}>={least}'")
        else:
            yield Line(name, "ok", version)


def _extras() -> Iterator[Line]:
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if util.find_spec(module) is None]
        versions = ", ".join(f"{module} {_version(module) or ''}".strip() for module in modules if module not in missing)
        if missing:
            yield Line(extra, "note", f"{', '.join(missing)} not installed", f'pip install "dlzoo[{extra}]", if you want it')
        else:
            yield Line(extra, "ok", versions)


def _devices() -> Iterator[Line]:
    import torch

    built = torch.version.cuda
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            major, minor = torch.cuda.get_device_capability(index)
            state = "ok" if free > 0.1 * total else "fix"
            found = (
                f"{torch.cuda.get_device_name(index)}, {free / GB:.1f} of {total / GB:.1f} GB free, capability {major}.{minor}"
            )
            yield Line(f"cuda:{index}", state, found, "" if state == "ok" else "another process fills it: nvidia-smi")
        yield Line("driver", "ok", f"{_driver() or 'unknown'}, torch built for CUDA {built}")
    elif _driver():
        yield Line(
            "cuda", "fix", f"driver {_driver()}, but torch (CUDA {built}) sees no GPU", "pip install a torch for that driver"
        )
    else:
        yield Line("cuda", "note", "no NVIDIA GPU; trainer=auto takes the CPU")
    if sys.platform == "darwin":
        fine = torch.backends.mps.is_available()
        yield Line("mps", "ok" if fine else "note", "Apple GPU" if fine else "no Apple GPU for this torch")
    bf16 = _native_bf16()
    yield Line("native bf16", "ok" if bf16 == "yes" else "note", bf16)


def _threads() -> Iterator[Line]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads, asked = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS", "")
    found = f"{cores} cores for this process, torch uses {threads}{f', OMP_NUM_THREADS={asked}' if asked.isdigit() else ''}"
    more = f"OMP_NUM_THREADS={cores}" if threads > cores else ""
    yield Line("threads", "note" if more or threads < cores else "ok", found, more)


def _memory() -> Iterator[Line]:
    available, total = _meminfo("MemAvailable"), _meminfo("MemTotal")
    if not total:
        yield Line("memory", "note", "unknown on this system")
        return
    limit = _cgroup_limit()
    if limit and limit < total:
        available, total = min(available, limit - _cgroup_use()), limit
    low = available < 2 * GB
    found = f"{available / GB:.1f} of {total / GB:.1f} GB free"
    yield Line("memory", "fix" if low else "ok", found, "close something, or a smaller data.batch_size" if low else "")


def _shared_memory() -> Iterator[Line]:
    place = Path("/dev/shm")
    if not place.is_dir():
        yield Line("shared memory", "note", "no /dev/shm on this system")
        return
    size = shutil.disk_usage(place)
    low = size.free < 1 * GB
    fix = "docker run --shm-size=8g, or data.num_workers=0" if low else ""
    yield Line("shared memory", "fix" if low else "ok", f"{size.free / GB:.1f} of {size.total / GB:.1f} GB free", fix)


def _disk() -> Iterator[Line]:
    for what, place in (("free disk here", Path.cwd()), ("free disk tmp", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(place).free
        low = free < 5 * GB
        yield Line(what, "fix" if low else "ok", f"{free / GB:.0f} GB", "runs_dir=PATH on another disk" if low else "")
    problem = _write_problem(Path.cwd())
    yield Line(
        "runs here", "fix" if problem else "ok", problem or "the folder can be written", "runs_dir=PATH" if problem else ""
    )


def _data() -> Iterator[Line]:
    folder = Path(os.environ.get("DLZOO_DATA") or "data")
    name = "DLZOO_DATA" if os.environ.get("DLZOO_DATA") else "./data (DLZOO_DATA is not set)"
    if not folder.is_dir():
        state = "fix" if os.environ.get("DLZOO_DATA") else "note"
        yield Line(
            "data", state, f"{name} is no folder", "data sets are downloaded into it" if state == "note" else "set DLZOO_DATA"
        )
        return
    found = [data for data, patterns in DATA.items() if any(next(folder.glob(pattern), None) for pattern in patterns)]
    yield Line("data", "ok", f"{name}: {', '.join(['digits', *found])}" + ("" if found else " (no others yet)"))


def _cache() -> Iterator[Line]:
    folder = zoo.cache_dir()
    above = folder
    while not above.exists():
        above = above.parent
    problem = _write_problem(above)
    yield Line(
        "cache", "fix" if problem else "ok", problem or f"{_home(folder)} can be written", "DLZOO_CACHE=PATH" if problem else ""
    )


def _loggers() -> Iterator[Line]:
    yield Line("metrics.csv", "ok", "in every run directory")
    if util.find_spec("wandb"):
        yes = _wandb_account()
        mode = os.environ.get("WANDB_MODE", "")
        offline = f", WANDB_MODE={mode}" if mode in ("offline", "disabled", "online", "dryrun") else ""
        found = f"account: {'yes' if yes else 'no'}{offline}"
        yield Line(
            "wandb login", "ok" if yes else "note", found, "" if yes else "wandb login; without it runs are kept offline"
        )


def _network() -> Iterator[Line]:
    from dlzoo.data.download import offline

    yield Line("downloads", "note" if offline() else "ok", "forbidden by DLZOO_OFFLINE" if offline() else "allowed, https only")
    proxied = [name for name in ("https_proxy", "HTTPS_PROXY") if os.environ.get(name)]
    if proxied:
        yield Line("proxy", "note", f"{proxied[0]} is set")


# --- how it is found out


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())


def _native_bf16() -> str:
    import torch

    if torch.cuda.is_available():
        return "yes" if torch.cuda.get_device_capability() >= (8, 0) else "no (use trainer.precision=16-mixed)"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    return "yes" if "amx_bf16" in flags or "avx512_bf16" in flags else "no (trainer=cpu will be faster than cpu_fast)"


def _driver() -> str:
    path = Path("/proc/driver/nvidia/version")
    try:
        words = path.read_text(encoding="utf-8").split()
    except OSError:
        return ""
    return next((word for word in words if word[:1].isdigit() and word.count(".") >= 1), "")


def _meminfo(key: str) -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0.0)


def _cgroup_limit() -> float:
    return _first_number("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def _cgroup_use() -> float:
    return _first_number("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


def _first_number(*paths: str) -> float:
    for path in paths:
        try:
            text = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            return float(text)
    return 0.0


def _write_problem(folder: Path) -> str:
    """Why nothing can be written there; "" where it can."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".dlzoo-doctor-") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"{_home(folder)} can not be written: {error.strerror}"
    return ""


def _home(path: Path) -> str:
    """A path without the user's name: the block goes into an issue that anyone can read."""
    with_tilde = str(path)
    home = str(Path.home())
    return "~" + with_tilde.removeprefix(home) if with_tilde.startswith(home + os.sep) else with_tilde


def _wandb_account() -> bool:
    import netrc

    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return netrc.netrc(path).authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
