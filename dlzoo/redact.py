"""Secrets stay out of what is written: the one place that knows what a secret looks like.

A secret is the value of an environment variable with a name such as WANDB_API_KEY or HF_TOKEN, the password in an address, and
what has the shape of a well-known service's token. A config that holds one is refused; in texts that quote others (the command
line, a traceback, a warning of a library) it is replaced by its name.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["LogFormatter", "redact", "secret_in"]

_NAME = re.compile(
    r"(^|[_.-])(API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|PAT)([_.-]|\d|$)",
    re.I,
)
_SHORTEST = 8  # a shorter value is a word that may stand anywhere: TOKEN=1
_SHAPES = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "a GitHub token": re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})"),
    "an API key": re.compile(r"\b(sk|pk|rk)-[A-Za-z0-9_-]{20,}|\bwandb_v\d_\w{20,}|\bglpat-[\w-]{20,}|\bxox[abprs]-[\w-]{10,}"),
    "an AWS key": re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}
_IN_ADDRESS = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://)(?P<secret>[^/\s@'\"]*:[^/\s@'\"]+)(?=@)", re.I)
_IN_QUERY = re.compile(
    r"(?P<before>[?&](?:api_?key|access_token|token|key|sig|signature|password|secret)=)"
    r"(?P<secret>[^&\s'\"#]+)",
    re.I,
)
_IN_WORD = re.compile(
    r"(?P<before>(?:^|(?<=[\s.'\"+-]))"
    r"(?:(?:\w*_)?(?:api_?key|access_?key|secret|password|passwd|passphrase)|(?:(?:api|access|auth|bearer|hf|wandb)_)?token)=)"
    r"(?P<secret>[^\s'\",&<\[]{4,})",
    re.I,
)


def redact(text: str) -> str:
    """The text with every secret replaced by what it is, in angle brackets."""
    for name, value in _secrets():
        text = text.replace(value, f"<{name}>")
    for kind, shape in _SHAPES.items():
        text = shape.sub(f"<{kind}>", text)
    for pattern in (_IN_ADDRESS, _IN_QUERY, _IN_WORD):
        text = pattern.sub(r"\g<before><secret>", text)
    return text


def secret_in(node: Any, key: str = "") -> tuple[str, str] | None:
    """The first value of a config that holds a secret, as its dotted key and what the secret is; None where none does."""
    if isinstance(node, Mapping | list | tuple):
        pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
        for name, value in pairs:
            path = f"{key}.{name}" if key else str(name)
            if found := secret_in(value, path) or secret_in(str(name), path):
                return found
        return None
    if not isinstance(node, str):
        return None
    for name, value in _secrets():
        if value in node:
            return key, f"the value of {name}"
    for kind, shape in _SHAPES.items():
        if shape.search(node):
            return key, kind
    return (key, "a password in an address") if _IN_ADDRESS.search(node) or _IN_QUERY.search(node) else None


class LogFormatter(logging.Formatter):
    """The lines of train.log, tracebacks too, without secrets."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _secrets() -> Iterator[tuple[str, str]]:
    """Names and values of the process's secret variables, the longest value first: one may be a part of another."""
    found = {}
    for name, value in os.environ.items():
        if _NAME.search(name) and len(value) >= _SHORTEST and not _is_path(value):
            found[value] = name
        elif (address := _IN_ADDRESS.search(value)) and len(password := address["secret"].partition(":")[2]) >= _SHORTEST:
            found[password] = f"the password in {name}"
    yield from ((name, value) for value, name in sorted(found.items(), key=lambda pair: -len(pair[0])))


def _is_path(value: str) -> bool:
    """A variable such as GOOGLE_APPLICATION_CREDENTIALS names a file: not a secret itself."""
    return value.startswith(("/", "~", "./")) and Path(value).expanduser().exists()
