"""What llama.cpp computes from our GGUF files is what transformers computes from the checkpoint, within drift.

Compared are log-probabilities of the next token over the whole vocabulary, after prompts of 1 to 511 tokens; the
sliding window is 32 tokens. llama.cpp computes YaRN as if `truncate` were true whatever the config says, and GGUF has
no key for it: so the reference is the same weights with `truncate: true`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import command
from drift import drift, leads
from gguf_faults import F32_FAULTS, MAIN_FAULTS, MXFP4_FAULTS, with_fault
from llama_cpp import LlamaCpp
from numpy.typing import NDArray
from tolerances import BF16, F16, F32, MXFP4, Tolerance
from transformers import AutoTokenizer
from transformers_reference import OTHER_ARITHMETIC, Reference

N_VOCAB, WINDOW = 416, 32

# Any token id may be in a prompt, those without a text too. Inside the window, at its edges, beyond it, and far beyond.
PROMPTS = np.random.default_rng(0).integers(0, N_VOCAB, (2, 511)).tolist()
LENGTHS = (1, 5, WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + 2, 64, 97, 128, 160, 250, 384, 511)

TEXT = "<|start|>user<|message|>Où est la gare? It's 20:15, the train leaves in 3 minutes.<|end|><|start|>assistant"

LogProbs = NDArray[np.float64]
ToGguf = Callable[..., Path]


def transformers_log_probs(reference: Reference) -> LogProbs:
    """[positions, vocabulary]"""
    of_prompts = [reference.log_probs(prompt) for prompt in PROMPTS]
    return np.stack([log_probs[length - 1] for log_probs in of_prompts for length in LENGTHS])


def llama_cpp_log_probs(path: Path) -> LogProbs:
    """[positions, vocabulary]"""
    with LlamaCpp(path) as model:
        return np.stack([model.log_probs(prompt[:length], N_VOCAB) for prompt in PROMPTS for length in LENGTHS])


@pytest.fixture(scope="module")
def expected(tiny: Path) -> LogProbs:
    return transformers_log_probs(Reference(tiny, truncate=True))


@pytest.fixture(scope="module")
def to_gguf(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> ToGguf:
    """`to_gguf(*options)`: the file that the command makes of `tiny`; the first one of a split."""

    def convert(*options: str) -> Path:
        out = tmp_path_factory.mktemp("consumers") / "tiny.gguf"
        assert command("to-gguf", tiny, out, *options).code == 0
        return min(out.parent.glob("*.gguf"))

    return convert


@pytest.fixture(scope="module")
def f32_gguf(to_gguf: ToGguf) -> Path:
    return to_gguf("--type", "f32", "--experts", "f32")


@pytest.fixture(scope="module")
def of_f32_gguf(f32_gguf: Path) -> LogProbs:
    return llama_cpp_log_probs(f32_gguf)


@pytest.fixture(scope="module")
def of_default_gguf(tiny_gguf: Path) -> LogProbs:
    return llama_cpp_log_probs(tiny_gguf)


# --- float32 on both sides ---


def test_f32_gguf_is_within_1e_3_of_transformers_with_truncate_true(of_f32_gguf: LogProbs, expected: LogProbs) -> None:
    measured = drift(expected, of_f32_gguf)
    assert F32.excess(measured) <= 1, measured


@pytest.mark.parametrize("changes", OTHER_ARITHMETIC.values(), ids=OTHER_ARITHMETIC)
def test_f32_tolerance_rejects_other_arithmetic_50_times(changes: dict, tiny: Path, of_f32_gguf: LogProbs) -> None:
    measured = drift(transformers_log_probs(Reference(tiny, **changes)), of_f32_gguf)
    assert F32.excess(measured) >= 50, measured


@pytest.mark.parametrize("name", F32_FAULTS)
def test_f32_tolerance_rejects_faulty_files_50_times(
    name: str, f32_gguf: Path, expected: LogProbs, tmp_path: Path
) -> None:
    faulty = with_fault(f32_gguf, tmp_path / "faulty.gguf", F32_FAULTS[name])
    measured = drift(expected, llama_cpp_log_probs(faulty))
    assert F32.excess(measured) >= 50, measured


# --- what users run ---


def test_default_gguf_is_within_drift_of_transformers_with_truncate_true(
    of_default_gguf: LogProbs, expected: LogProbs
) -> None:
    measured = drift(expected, of_default_gguf)
    assert MXFP4.excess(measured) <= 1, measured


@pytest.mark.parametrize("name", MXFP4_FAULTS)
def test_mxfp4_tolerance_rejects_faulty_files_50_times(
    name: str, tiny_gguf: Path, expected: LogProbs, tmp_path: Path
) -> None:
    faulty = with_fault(tiny_gguf, tmp_path / "faulty.gguf", MXFP4_FAULTS[name])
    measured = drift(expected, llama_cpp_log_probs(faulty))
    assert MXFP4.excess(measured) >= 50, measured


VARIANTS: list[tuple[str, str, Tolerance]] = [
    ("f32", "mxfp4", MXFP4),
    ("f16", "mxfp4", MXFP4),
    ("auto", "bf16", BF16),
    ("bf16", "f32", BF16),
    ("f16", "f16", F16),
]


@pytest.mark.parametrize(("dense", "experts", "tolerance"), VARIANTS)
def test_every_encoding_is_within_drift_of_transformers_with_truncate_true(
    dense: str, experts: str, tolerance: Tolerance, to_gguf: ToGguf, expected: LogProbs
) -> None:
    measured = drift(expected, llama_cpp_log_probs(to_gguf("--type", dense, "--experts", experts)))
    assert tolerance.excess(measured) <= 1, measured


@pytest.mark.parametrize("name", MAIN_FAULTS)
@pytest.mark.parametrize(("encoding", "tolerance"), [("f16", F16), ("bf16", BF16)])
def test_tolerances_of_half_precision_reject_faulty_files_50_times(
    encoding: str, tolerance: Tolerance, name: str, to_gguf: ToGguf, expected: LogProbs, tmp_path: Path
) -> None:
    source = to_gguf("--type", encoding, "--experts", encoding)
    faulty = with_fault(source, tmp_path / "faulty.gguf", MAIN_FAULTS[name])
    measured = drift(expected, llama_cpp_log_probs(faulty))
    assert tolerance.excess(measured) >= 50, measured


def test_split_gguf_computes_exactly_what_one_file_does(to_gguf: ToGguf, of_default_gguf: LogProbs) -> None:
    first = to_gguf("--split-max-size", "1M")
    assert first.name.startswith("tiny-00001-of-")
    assert len(list(first.parent.glob("*.gguf"))) > 1
    assert np.array_equal(llama_cpp_log_probs(first), of_default_gguf)


def test_text_and_its_tokens_by_transformers_are_the_same_prompt_to_llama_cpp(tiny: Path, tiny_gguf: Path) -> None:
    ids = AutoTokenizer.from_pretrained(tiny)(TEXT)["input_ids"]
    assert len(ids) > WINDOW
    with LlamaCpp(tiny_gguf) as model:
        assert model.next_tokens(TEXT, N_VOCAB) == model.next_tokens(ids, N_VOCAB)


# --- the demo is fit for such a comparison ---


def test_demo_s_hidden_states_stay_sane(tiny: Path) -> None:
    rms = Reference(tiny, truncate=False).residual_rms(PROMPTS[0])
    assert len(rms) == 5
    assert all(0.5 < value < 4 for value in rms), rms


def test_demo_s_likeliest_tokens_are_not_near_ties(tiny: Path) -> None:
    lead = leads(Reference(tiny, truncate=True).log_probs(PROMPTS[0]))
    assert np.median(lead) > 2 * MXFP4.lead
