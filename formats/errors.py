"""The one exception tree. Every error says where, what was expected, what was found and what to do.

`str(error)` is a complete message for a person; `fields()` is the same for `--json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

REPORT = "This is a bug of gptoss-convert: please report it."
"""The remedy of an error that no file and no request can cause."""

DAMAGED_TENSOR = "The stored tensor is damaged: download the file again."

_FIELDS = ("problem", "file", "tensor", "key", "expected", "found", "remedy")


class GptOssConvertError(Exception):
    """Root of every error that a user can cause. Never raised itself.

    Args:
        problem: one clause that says what is wrong, without a final full stop.
        file: the file or directory it is wrong in.
        tensor: the stored tensor (by its name in that file), if it is about one.
        key: the metadata or config key, if it is about one.
        expected: what would have been right.
        found: what was there.
        remedy: what to do, as a sentence.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        tensor: str | None = None,
        key: str | None = None,
        expected: object = None,
        found: object = None,
        remedy: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = None if file is None else str(file)
        self.tensor = tensor
        self.key = key
        self.expected = None if expected is None else str(expected)
        self.found = None if found is None else str(found)
        self.remedy = remedy
        super().__init__(self._message())

    def _message(self) -> str:
        where = []
        if self.file is not None:
            where.append(self.file)
        if self.tensor is not None:
            where.append(f"tensor {self.tensor!r}")
        if self.key is not None:
            where.append(f"key {self.key!r}")
        message = ": ".join([*where, self.problem])
        if self.expected is not None:
            message += f"; expected {self.expected}"
        if self.found is not None:
            message += f"; found {self.found}"
        message += "."
        if self.remedy is not None:
            message += f" {self.remedy}"
        return message

    def fields(self) -> dict[str, str]:
        """The error as flat JSON data: kind, message and whichever fields are set."""
        fields = {"kind": type(self).__name__, "message": str(self)}
        for name in _FIELDS:
            value = getattr(self, name)
            if value is not None:
                fields[name] = value
        return fields

    def but(self, **changed: Any) -> Self:
        """The same error with other fields: those of its constructor by name, `problem` too."""
        fields = {name: getattr(self, name) for name in _FIELDS} | changed
        return type(self)(fields.pop("problem"), **fields)


@contextmanager
def remedied(remedy: str) -> Iterator[None]:
    """Inside, an error that has no remedy gets this one."""
    try:
        yield
    except GptOssConvertError as error:
        if error.remedy is not None:
            raise
        raise error.but(remedy=remedy) from error


class FormatError(GptOssConvertError):
    """A container's bytes break the rules of its format."""


class SafetensorsError(FormatError):
    """A safetensors file or index breaks a rule of the format."""


class GgufError(FormatError):
    """A GGUF file breaks a rule of the format, or a value cannot be written as GGUF."""


class MetalError(FormatError):
    """A Metal model file breaks a rule of the format, or a value cannot be written as one."""


class CodecError(GptOssConvertError):
    """A value cannot be represented in the encoding asked for, or stored codes are invalid."""


class CheckpointError(GptOssConvertError):
    """A path is not a checkpoint, or its tensors are not those of its config."""


class ConfigError(CheckpointError):
    """A config value is missing, unknown, or contradicts another or the tensors."""


class TokenizerError(CheckpointError):
    """A tokenizer is missing, unreadable, or does not fit the model."""


class OutputError(GptOssConvertError):
    """The output cannot be written: exists, no space, no permission, in use."""


class VerificationError(GptOssConvertError):
    """The written file does not hold what its source held."""


class UsageError(GptOssConvertError):
    """The request itself cannot be meant: contradicting or unknown options. Exit code 2."""
