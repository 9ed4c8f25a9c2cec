"""llama.cpp in this process, through the xllamacpp wheel: the consumer that a GGUF is made for.

Settings that would change numbers are fixed: float32 keys and values, no flash attention, no repacked weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import xllamacpp
from numpy.typing import NDArray


@dataclass(frozen=True)
class Candidate:
    """A next token and its natural-log probability."""

    token_id: int
    text: str
    log_prob: float


class LlamaCpp:
    """A loaded GGUF file; `with` or `close` frees it. Raises RuntimeError if llama.cpp refuses it."""

    def __init__(self, path: Path, n_ctx: int = 512, n_threads: int = 1) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = n_ctx
        params.n_batch = n_ctx
        params.n_ubatch = n_ctx
        params.warmup = False
        params.n_parallel = 1
        params.verbosity = 0
        params.cpuparams.n_threads = n_threads
        params.no_extra_bufts = True
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(params)

    def next_tokens(self, prompt: list[int] | str, n_candidates: int) -> list[Candidate]:
        """The likeliest next tokens after `prompt` (token ids, or text to be tokenized), most likely first."""
        # llama.cpp reports the probabilities before the bias, but none at all when the token it samples ends generation
        # or is part of a character: so it is made to sample a token that does neither.
        answer = self._complete(prompt, n_predict=1, n_probs=n_candidates, logit_bias=[["!", 1000.0]])
        found = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return [Candidate(entry["id"], entry["token"], entry["logprob"]) for entry in found]

    def log_probs(self, prompt: Sequence[int], n_vocab: int) -> NDArray[np.float64]:
        """The log-probability of every token after `prompt`, by token id; NaN for one that llama.cpp does not name."""
        found = np.full(n_vocab, np.nan)
        for candidate in self.next_tokens(list(prompt), n_vocab):
            found[candidate.token_id] = candidate.log_prob
        return found

    def generate(self, prompt: str, n_tokens: int) -> str:
        """`n_tokens` greedily chosen tokens after `prompt`, as text."""
        answer = self._complete(prompt, n_predict=n_tokens, temperature=0.0, seed=1)
        return str(answer["choices"][0]["text"])

    def close(self) -> None:
        """Ends llama.cpp's threads and frees the weights."""
        del self._server

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _complete(self, prompt: list[int] | str, **options: object) -> dict[str, Any]:
        request = {"prompt": prompt, "cache_prompt": False, **options}
        answer: dict[str, Any] = self._server.handle_completions(request)
        return answer
