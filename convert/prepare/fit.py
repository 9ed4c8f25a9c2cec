"""Does a model fit into a machine's memory, by how much not, and what would make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .machines import CPU, GIB, MIB, Machine
from .memory import (
    LLAMA_CPP,
    LM_STUDIO,
    OLLAMA,
    RUN_LLAMA_CPP,
    VLLM,
    activation_bytes,
    kv_bytes,
    runtime_bytes,
    system_reserve,
    wired_limit,
)
from .model import ModelBytes, published_20b

# The share of a card that vLLM takes as we start it.
VLLM_SHARE = 90
# Contexts shorter than this are not proposed: a Harmony conversation with its reasoning would not go far.
LEAST_CONTEXT = 2048
_CONTEXT_STEP = 256
_KV_OPTIONS = {
    LLAMA_CPP: "-fa on -ctk q8_0 -ctv q8_0",
    OLLAMA: "OLLAMA_KV_CACHE_TYPE=q8_0",
    LM_STUDIO: "in the model's settings",
}
MOST_CARDS = 8
# What a Mac needs beside its GPU before we say that more may be given to it.
LEAST_REST = 4 * GIB


@dataclass(frozen=True)
class Setting:
    """How a consumer is started, as far as it changes what it needs.

    Args:
        consumer: its name.
        context: tokens of prompt and answer together.
        kv_type: of the cache's elements.
        cpu_layers: in how many layers, from the first on, the experts stay with the processor.
        cards: over how many cards the model is spread.
    """

    consumer: str
    context: int
    kv_type: str = "f16"
    cpu_layers: int = 0
    cards: int = 1


@dataclass(frozen=True)
class Needs:
    """Bytes that one card needs, or the machine where there is none, and what its host needs beside.

    `host_weights` stay in the memory of the machine around the card; on machines that share one memory they are part of
    `together`.
    """

    weights: int
    kv_cache: int
    activations: int
    runtime: int
    host_weights: int = 0

    @property
    def total(self) -> int:
        """What the card, or the GPU's share of a common memory, must hold."""
        return self.weights + self.kv_cache + self.activations + self.runtime

    @property
    def together(self) -> int:
        """What a machine must hold that has one memory for everything."""
        return self.total + self.host_weights


@dataclass(frozen=True)
class Remedy:
    """A change that makes it fit: a sentence, and the setting it stands for where it is one of ours."""

    kind: str
    text: str
    setting: Setting | None = None
    n_bytes: int | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether it fits; None if the machine's memory is not known. `remedies` are there only if it does not."""

    fits: bool | None
    needs: Needs
    available: int | None
    remedies: tuple[Remedy, ...] = ()

    @property
    def spare(self) -> int | None:
        """Bytes left over; negative if they are lacking."""
        return None if self.available is None else self.available - self.needs.total


def needs_of(model: ModelBytes, machine: Machine | None, setting: Setting) -> Needs:
    """What the model takes when started so; on a card unless the machine is one without."""
    consumer, cards = setting.consumer, setting.cards
    offloaded = sum(model.experts[: setting.cpu_layers])
    # llama.cpp looks tokens up on the processor wherever it has a memory of its own.
    on_card = machine is None or machine.is_card
    kept = model.embedding if on_card and consumer in RUN_LLAMA_CPP else 0
    return Needs(
        weights=-(-(model.total - offloaded - kept) // cards),
        kv_cache=-(-kv_bytes(consumer, model.config, setting.context, setting.kv_type) // cards),
        activations=activation_bytes(consumer, model.config, setting.context),
        runtime=runtime_bytes(consumer, on_card=on_card),
        host_weights=offloaded + kept,
    )


def available(machine: Machine, consumer: str) -> int | None:
    """Bytes that the consumer may have there: of a card, or of a common memory what the system leaves to it."""
    if machine.memory_bytes is None:
        return None
    if machine.family == CPU:
        return machine.memory_bytes - system_reserve(machine.memory_bytes)
    if not machine.is_card:
        limit = machine.wired_bytes or wired_limit(machine.memory_bytes)
        return min(limit, machine.memory_bytes - system_reserve(machine.memory_bytes))
    return machine.memory_bytes * VLLM_SHARE // 100 if consumer == VLLM else machine.memory_bytes


def judge(model: ModelBytes, machine: Machine | None, setting: Setting) -> Verdict:
    """Whether it fits, and what would help if not."""
    needs = needs_of(model, machine, setting)
    memory = None if machine is None else available(machine, setting.consumer)
    if machine is None or memory is None:
        return Verdict(None, needs, None)
    if _holds(model, machine, setting):
        return Verdict(True, needs, memory)
    return Verdict(False, needs, memory, tuple(_remedies(model, machine, setting)))


def _holds(model: ModelBytes, machine: Machine, setting: Setting) -> bool:
    """True if the card and its host, or the one memory there is, can hold it all."""
    needs, memory = needs_of(model, machine, setting), available(machine, setting.consumer)
    assert memory is not None
    if needs.total > memory:
        return False
    if machine.is_card:
        host = machine.host_bytes
        return host is None or needs.host_weights <= host - system_reserve(host)
    assert machine.memory_bytes is not None
    return needs.together <= machine.memory_bytes - system_reserve(machine.memory_bytes)


def _remedies(model: ModelBytes, machine: Machine, setting: Setting) -> Iterator[Remedy]:
    """What would make it fit, what costs least first; every setting named here was tried."""
    yield from _more_for_the_gpu(model, machine, setting)
    yield from _experts_on_processor(model, machine, setting)
    yield from _smaller_cache(model, machine, setting)
    yield from _more_cards(model, machine, setting)
    yield from _another_consumer(model, machine, setting)
    yield from _the_small_model(model, machine, setting)


def _the_small_model(model: ModelBytes, machine: Machine, setting: Setting) -> Iterator[Remedy]:
    """gpt-oss-20b, where the model is larger."""
    small = published_20b()
    if model.config.num_local_experts <= small.config.num_local_experts:
        return
    if _holds(small, machine, setting):
        needed = needs_of(small, machine, setting).total
        yield Remedy("20b", f"gpt-oss-20b fits: it needs {_gb(needed)}", None, needed)
    else:
        for remedy in _experts_on_processor(small, machine, setting):
            yield Remedy("20b", f"gpt-oss-20b fits with {remedy.text}", None, remedy.n_bytes)
            return


def _more_for_the_gpu(model: ModelBytes, machine: Machine, setting: Setting) -> Iterator[Remedy]:
    """A higher limit for the GPU of a Mac, where only the limit is in the way."""
    if machine.is_card or machine.family == CPU or machine.memory_bytes is None:
        return
    needed = needs_of(model, machine, setting).total
    mib = -(-needed // MIB)
    rest = machine.memory_bytes - mib * MIB
    if rest >= LEAST_REST and _holds(model, replace(machine, wired_bytes=mib * MIB), setting):
        yield Remedy(
            "wired-limit",
            f"`sudo sysctl iogpu.wired_limit_mb={mib}` lets the GPU have enough until the next restart, and leaves "
            f"{_gb(rest)} to everything else",
            setting,
            needed,
        )


def _experts_on_processor(model: ModelBytes, machine: Machine, setting: Setting) -> Iterator[Remedy]:
    """llama.cpp can leave the experts of the first layers to the processor."""
    if setting.consumer == OLLAMA and machine.is_card:
        yield Remedy("offload", "Ollama leaves to the processor what does not fit, by itself; answers come slower")
    if setting.consumer != LLAMA_CPP or machine.family == CPU:
        return
    for cpu_layers in range(1, len(model.experts) + 1):
        changed = replace(setting, cpu_layers=cpu_layers)
        if _holds(model, machine, changed):
            needs = needs_of(model, machine, changed)
            yield Remedy(
                "n-cpu-moe",
                f"--n-cpu-moe {cpu_layers}, which leaves the experts of the first {cpu_layers} of {len(model.experts)} "
                f"layers to the processor, with {_gb(needs.host_weights)} of its memory; answers come slower",
                changed,
                needs.total,
            )
            return


def _smaller_cache(model: ModelBytes, machine: Machine, setting: Setting) -> Iterator[Remedy]:
    if setting.consumer in RUN_LLAMA_CPP:
        changed = replace(setting, kv_type="q8_0")
        if _holds(model, machine, changed):
            after, before = needs_of(model, machine, changed), needs_of(model, machine, setting)
            yield Remedy(
                "kv-q8_0",
                f"keys and values in q8_0 ({_KV_OPTIONS[setting.consumer]}): {_gb(after.kv_cache)}, not "
                f"{_gb(before.kv_cache)}; results change a little",
                changed,
                after.total,
            )
    low, high = 0, setting.context // _CONTEXT_STEP
    while low < high:
        middle = (low + high + 1) // 2
        fits = _holds(model, machine, replace(setting, context=middle * _CONTEXT_STEP))
        low, high = (middle, high) if fits else (low, middle - 1)
    if LEAST_CONTEXT <= low * _CONTEXT_STEP < setting.context:
        changed = replace(setting, context=low * _CONTEXT_STEP)
        yield Remedy(
            "context",
            f"--context {changed.context} fits",
            changed,
            needs_of(model, machine, changed).total,
        )


def _more_cards(model: ModelBytes, machine: Machine, setting: Setting) -> Iterator[Remedy]:
    """Several of the same card."""
    if not machine.is_card:
        return
    for cards in card_counts(setting.consumer, MOST_CARDS):
        changed = replace(setting, cards=cards)
        if cards > setting.cards and _holds(model, machine, changed):
            needed = needs_of(model, machine, changed).total
            yield Remedy("cards", f"{cards} such cards, with {_gb(needed)} on each", changed, needed)
            return


def card_counts(consumer: str, most: int) -> list[int]:
    """Over how many cards a model may be spread; vLLM splits heads, so that their number must divide."""
    return [cards for cards in range(1, most + 1) if consumer != VLLM or cards in (1, 2, 4, 8)]


def _another_consumer(model: ModelBytes, machine: Machine, setting: Setting) -> Iterator[Remedy]:
    """llama.cpp with some experts on the processor, where another program keeps everything on the card."""
    if setting.consumer == LLAMA_CPP or machine.family == CPU:
        return
    changed = replace(setting, consumer=LLAMA_CPP, kv_type="f16")
    if _holds(model, machine, changed):
        needed = needs_of(model, machine, changed).total
        yield Remedy("llama.cpp", f"--for llama.cpp fits: it needs {_gb(needed)}", changed, needed)
    for remedy in _experts_on_processor(model, machine, changed):
        yield replace(remedy, kind="llama.cpp", text=f"--for llama.cpp with {remedy.text}")
        return


def _gb(n_bytes: int) -> str:
    """Memory as drivers count it."""
    return f"{n_bytes / GIB:.1f} GiB"
