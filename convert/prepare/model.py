"""What of a model lies where in memory: its tensors' bytes, put together as consumers place them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ...formats.codecs.encoding import BF16, F32, MXFP4, Encoding, canonical
from ...model.config import GptOssConfig, parse_config
from ...model.hf_files import GPT_OSS_20B
from ...model.inventory import CanonicalTensor, inventory
from ..stored import StoredTensor


@dataclass(frozen=True)
class ModelBytes:
    """Bytes of a model's tensors, as a consumer has them in memory.

    Args:
        config: the model's.
        embedding: the table that tokens are looked up in.
        experts: weights and biases of all experts, by layer.
        other: everything else.
    """

    config: GptOssConfig
    embedding: int
    experts: tuple[int, ...]
    other: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.embedding + sum(self.experts) + self.other


def stored_bytes(config: GptOssConfig, tensors: Mapping[str, StoredTensor]) -> ModelBytes:
    """The bytes of `tensors` as they are stored."""
    return _sum(config, ((stored.tensor, stored.n_bytes) for stored in tensors.values()))


def published_20b() -> ModelBytes:
    """The bytes of gpt-oss-20b as it is published."""
    return packed(parse_config(GPT_OSS_20B))


def packed(config: GptOssConfig, *, f32_roles: Collection[str] = ()) -> ModelBytes:
    """The bytes of a model with its experts in MXFP4, `f32_roles` in F32 and everything else in BF16."""
    encodings = {"experts": MXFP4} | dict.fromkeys(f32_roles, F32)
    return _sum(config, ((tensor, _n_bytes(tensor, encodings.get(tensor.role, BF16))) for tensor in _tensors(config)))


def decoded(config: GptOssConfig) -> ModelBytes:
    """The bytes of a model with every tensor in BF16."""
    return _sum(config, ((tensor, _n_bytes(tensor, BF16)) for tensor in _tensors(config)))


def has_packed_experts(tensors: Mapping[str, StoredTensor]) -> bool:
    """True if all experts are MXFP4."""
    experts = (stored for stored in tensors.values() if stored.tensor.role == "experts")
    return all(canonical(stored.encoding) is MXFP4 for stored in experts)


def _tensors(config: GptOssConfig) -> Iterable[CanonicalTensor]:
    return inventory(config).values()


def _n_bytes(tensor: CanonicalTensor, encoding: Encoding) -> int:
    return tensor.rows * encoding.row_bytes(tensor.cols)


def _sum(config: GptOssConfig, sizes: Iterable[tuple[CanonicalTensor, int]]) -> ModelBytes:
    experts = [0] * config.num_hidden_layers
    embedding = other = 0
    for tensor, n_bytes in sizes:
        if tensor.role in ("experts", "expert bias"):
            experts[int(tensor.name.split(".")[1])] += n_bytes
        elif tensor.role == "embedding":
            embedding += n_bytes
        else:
            other += n_bytes
    return ModelBytes(config, embedding, tuple(experts), other)
