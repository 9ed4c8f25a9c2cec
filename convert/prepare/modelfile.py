"""The Modelfile that Ollama makes a model of.

Since 0.30 Ollama runs a GGUF in llama.cpp's server with the chat template inside the file. TEMPLATE would replace that
one with a template in Go, and PARSER without TEMPLATE forces Go's as well: both are left out. Older versions need a
TEMPLATE, of which Ollama has none of its own for gpt-oss; REQUIRES makes them say so.

Source: ollama fb30760, parser/parser.go, docs/modelfile.mdx.
"""

from __future__ import annotations

from ...formats.errors import UsageError

FILE_NAME = "Modelfile"
LEAST_VERSION = "0.30.0"


def modelfile(gguf: str, context: int) -> bytes:
    """The text of a Modelfile beside, or with the absolute path of, a GGUF file. Raises UsageError.

    Args:
        gguf: the file, as seen from the Modelfile.
        context: tokens of prompt and answer together.
    """
    if "\n" in gguf or "\r" in gguf:
        raise UsageError("a Modelfile cannot name a path with a line break", file=gguf, remedy="Rename it.")
    lines = (
        f"# Made by gptoss-convert for Ollama {LEAST_VERSION} or newer; the chat template is the one in the GGUF.",
        f"FROM {gguf}",
        f"REQUIRES {LEAST_VERSION}",
        f"PARAMETER num_ctx {context}",
        "PARAMETER temperature 1",
        "PARAMETER top_p 1",
    )
    return "".join(f"{line}\n" for line in lines).encode()
