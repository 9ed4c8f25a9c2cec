"""What `--for` means: which program is to run the model, on which machine, and why."""

from __future__ import annotations

from dataclasses import dataclass

from ...formats.errors import UsageError
from ..render import size
from .consumers import ARTICLES, BF16, NAMED, NATIVE, READS, TITLES, WAYS, Way, default_consumer, way_of
from .here import machine_here, processor_here
from .machines import FAMILIES, OTHER, REPRESENTATIVES, Machine, named, parse_machine

AUTO = "auto"
PURPOSES = (*FAMILIES, *NAMED, AUTO)


@dataclass(frozen=True)
class Choice:
    """The consumer, where it will run, and how; `machine` and `way` are None if nothing is known of where.

    `origin` says where the machine comes from: "named", "here", or "example", the table's example of a family.
    """

    purpose: str
    consumer: str
    machine: Machine | None
    way: Way | None
    origin: str


def choose(purpose: str, device: str | None) -> Choice:
    """The choice for `--for purpose` and `--device device`.

    Raises:
        UsageError: there is no such device, it is of another family, or the consumer does not run there.
    """
    machine, origin = _machine(purpose, device)
    consumer = purpose if purpose in NAMED else default_consumer(machine.arch if machine else "")
    way = None if machine is None else way_of(consumer, machine)
    if machine is not None and way is None:
        if origin == "here":
            # It is to run elsewhere.
            return Choice(purpose, consumer, None, None, origin)
        raise UsageError(
            f"{TITLES[consumer]} does not run gpt-oss on {named(machine)}",
            expected=f"--for {' or '.join(_runs_on(machine))}",
            found=f"--for {purpose}",
            remedy="`--for llama.cpp` runs nearly everywhere.",
        )
    return Choice(purpose, consumer, machine, way, origin)


def reason(choice: Choice, n_bytes: int, bf16_bytes: int) -> str:
    """Why this output, in one sentence. `n_bytes` are those of its tensors, `bf16_bytes` those of the model in BF16."""
    reads = f"{TITLES[choice.consumer]} reads {ARTICLES[READS[choice.consumer]]}"
    sizes = f"{size(n_bytes)} of weights where BF16 would take {size(bf16_bytes)}"
    if choice.way is None or choice.machine is None:
        return f"{reads}, with the experts in MXFP4: {sizes}."
    where = "this machine" if choice.machine.family == OTHER else choice.machine.family
    if choice.way.experts == BF16:
        return f"{reads}, but has no MXFP4 on {where}: {choice.way.how}, and takes {size(bf16_bytes)} then."
    verb = "natively" if choice.way.experts == NATIVE else "by emulation"
    return f"{reads} and runs MXFP4 {verb} on {where}: {choice.way.how}; {sizes}."


def _machine(purpose: str, device: str | None) -> tuple[Machine | None, str]:
    """The machine, and where it comes from."""
    if device is not None:
        machine = parse_machine(device)
        if purpose in FAMILIES and machine.family != purpose:
            raise UsageError(
                f"{named(machine)} is {machine.family}, not {purpose}",
                expected=f"--for {machine.family}, or another --device",
                found=f"--for {purpose} --device {device!r}",
                remedy=f"Use --for {machine.family}, or leave --device away.",
            )
        return machine, "named"
    here = machine_here()
    if purpose in FAMILIES and here.family != purpose:
        if purpose not in REPRESENTATIVES:
            return processor_here(), "here"
        return parse_machine(REPRESENTATIVES[purpose]), "example"
    return here, "here"


def _runs_on(machine: Machine) -> list[str]:
    return [consumer for consumer in NAMED if machine.family in WAYS[consumer]]
