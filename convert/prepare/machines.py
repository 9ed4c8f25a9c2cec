"""The machines there are: a table of cards and of Apple's chips, and how people spell them.

A card's `driver_mib` is the total that its driver's tool reports (nvidia-smi, rocm-smi), which is what a program can
hope for; `vendor_gb` is what is printed on the box. Apple's and the processors' memory is that of the whole machine.

Source: nvidia-smi of each card, ECC as delivered; rocm-smi for AMD; Apple's technical specifications.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ...formats.errors import UsageError

MIB, GIB = 1 << 20, 1 << 30

# What `--for` calls a machine by its architecture. OTHER is for those that are found but have no name there.
TURING, AMPERE, ADA, HOPPER, BLACKWELL = "turing", "ampere", "ada", "hopper", "blackwell"
MI300, RDNA3, APPLE, CPU, OTHER = "mi300", "rdna3", "apple", "cpu", "other"
FAMILIES = (AMPERE, TURING, ADA, HOPPER, BLACKWELL, MI300, RDNA3, APPLE, CPU)

_FAMILY_OF_ARCH = (
    (r"sm_7[05]", TURING),
    (r"sm_8[0678]", AMPERE),
    (r"sm_89", ADA),
    (r"sm_9\d", HOPPER),
    (r"sm_1[0-2]\d", BLACKWELL),
    (r"gfx9(42|50)", MI300),
    (r"gfx11\d\d", RDNA3),
)


@dataclass(frozen=True)
class Machine:
    """Something that a model may run on.

    Args:
        name: what people call it.
        family: one of FAMILIES, or OTHER.
        arch: as the kernels' table has it; "" for Apple and for processors.
        memory_bytes: memory of one card as the driver reports it, or of the whole machine; None if not known.
        vendor_gb: memory as the vendor gives it; None if it was found and not named.
        count: how many such cards there are.
        host_bytes: memory of the machine around the cards; None if not known.
        wired_bytes: what macOS lets the GPU have, where that was set by hand.
    """

    name: str
    family: str
    arch: str = ""
    memory_bytes: int | None = None
    vendor_gb: int | None = None
    count: int = 1
    host_bytes: int | None = None
    wired_bytes: int | None = None

    @property
    def is_card(self) -> bool:
        """True if it has memory of its own beside the machine's."""
        return self.family not in (APPLE, CPU)


def _card(name: str, arch: str, vendor_gb: int, driver_mib: int) -> Machine:
    return Machine(name, family_of(arch), arch, driver_mib * MIB, vendor_gb)


def family_of(arch: str) -> str:
    """The family of an architecture: "sm_86" is "ampere"."""
    return next((family for pattern, family in _FAMILY_OF_ARCH if re.fullmatch(pattern, arch)), OTHER)


CARDS: dict[str, Machine] = {
    card.name: card
    for card in (
        _card("T4", "sm_75", 16, 15_360),
        _card("RTX 3090", "sm_86", 24, 24_576),
        _card("RTX A6000", "sm_86", 48, 49_140),
        _card("A100-40", "sm_80", 40, 40_960),
        _card("A100-80", "sm_80", 80, 81_920),
        _card("RTX 4090", "sm_89", 24, 24_564),
        _card("L40S", "sm_89", 48, 46_068),
        _card("H100", "sm_90", 80, 81_559),
        _card("H200", "sm_90", 141, 143_771),
        _card("RTX 5090", "sm_120", 32, 32_607),
        _card("B200", "sm_100", 180, 183_359),
        _card("MI300X", "gfx942", 192, 196_592),
        _card("RX 7900 XTX", "gfx1100", 24, 24_560),
    )
}

# Memory, in what Apple calls GB and is GiB, that each chip is sold with.
CHIPS: dict[str, tuple[int, ...]] = {
    "M1": (8, 16),
    "M1 Pro": (16, 32),
    "M1 Max": (32, 64),
    "M1 Ultra": (64, 128),
    "M2": (8, 16, 24),
    "M2 Pro": (16, 32),
    "M2 Max": (32, 64, 96),
    "M2 Ultra": (64, 128, 192),
    "M3": (8, 16, 24),
    "M3 Pro": (18, 36),
    "M3 Max": (36, 48, 64, 96, 128),
    "M3 Ultra": (96, 256, 512),
    "M4": (16, 24, 32),
    "M4 Pro": (24, 48, 64),
    "M4 Max": (36, 48, 64, 128),
}

# The machine that `--for FAMILY` means where this machine is none of that family.
REPRESENTATIVES = {
    TURING: "T4",
    AMPERE: "RTX 3090",
    ADA: "RTX 4090",
    HOPPER: "H100",
    BLACKWELL: "RTX 5090",
    MI300: "MI300X",
    RDNA3: "RX 7900 XTX",
    APPLE: "M4:32",
}

_WORDS = ("nvidia", "amd", "apple", "geforce", "radeon", "instinct", "tesla", "quadro", "rtx", "rx", "gpu", "gb", "gib")


def parse_machine(text: str) -> Machine:
    """The machine that `text` names: "3090", "RTX 4090", "a100-80", "M2 Max 64", "M4:32". Raises UsageError."""
    key = _key(text)
    for card in CARDS.values():
        if key in (_key(card.name), _key(f"{card.name}{card.vendor_gb}")):
            return card
    if found := re.fullmatch(r"(m[1-4](?:pro|max|ultra)?)(\d+)?", key):
        return _chip(text, found[1], found[2])
    raise UsageError(
        "there is no such device in the table",
        expected=f"such as {', '.join(_near(text))}",
        found=repr(text),
        remedy="`--for auto` looks at this machine; `--for llama.cpp` without --device says what the model needs.",
    )


def mac(name: str, gib: int) -> Machine:
    """An Apple machine with `gib` GiB."""
    return Machine(name, APPLE, "", gib * GIB, gib)


def named(machine: Machine) -> str:
    """The machine's name with its memory."""
    return machine.name if machine.vendor_gb is None else f"{machine.name} ({machine.vendor_gb} GB)"


def spellings() -> list[str]:
    """Every name in the table: cards, and each chip with each memory."""
    return [*CARDS, *(f"{chip} {gib}" for chip, sizes in CHIPS.items() for gib in sizes)]


def _chip(text: str, key: str, gib: str | None) -> Machine:
    name = next(chip for chip in CHIPS if _key(chip) == key) if key in map(_key, CHIPS) else None
    if name is None:
        raise UsageError(
            "there is no such chip",
            expected=f"one of {', '.join(CHIPS)}",
            found=repr(text),
            remedy="Name one of these with its memory, such as --device 'M2 Max 64'.",
        )
    sizes = CHIPS[name]
    if gib is None or int(gib) not in sizes:
        raise UsageError(
            f"the {name} comes with several sizes of memory" if gib is None else f"no {name} comes with that memory",
            expected=" or ".join(f"'{name} {size}'" for size in sizes),
            found=repr(text),
            remedy=f"Name it with its memory: --device '{name} {sizes[-1]}'.",
        )
    return mac(name, int(gib))


def _near(text: str) -> list[str]:
    """Names that look like `text`, the likeliest first; some of each kind where none does."""
    by_key = {_key(name): name for name in spellings()}
    found = difflib.get_close_matches(_key(text), by_key, n=4, cutoff=0.5)
    return [by_key[key] for key in found] or ["RTX 3090", "A100-80", "MI300X", "M2 Max 64"]


def _key(text: str) -> str:
    """Letters and digits alone, without makers' words and units: "NVIDIA GeForce RTX 3090 24GB" is "309024"."""
    parts = re.findall(r"[a-z]+|\d+", text.lower())
    return "".join(part for part in parts if part not in _WORDS)
