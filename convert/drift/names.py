"""Whether a model's name says that it was trained further."""

from __future__ import annotations

import re

from ..checkpoint import Checkpoint

# A part of a name, between signs that are no letters or digits, that says so.
_WORD = re.compile(
    "abliterated|adapter|distill|distilled|dpo|finetune|finetuned|ft|grpo|heretic|instruct|kto|lora|merged|orpo|ppo"
    "|qlora|retrained|rl|rlhf|sft|tuned|trained|uncensored"
)


def training_word(checkpoint: Checkpoint) -> str | None:
    """The first word that says so in the name of the model, of its directory or file, or in its config; else None.

    "fine-tuned" and "fine_tuned" count as "finetuned".
    """
    said = checkpoint.config.raw.get("_name_or_path")
    for name in (checkpoint.model_name, checkpoint.path.name, said if isinstance(said, str) else None):
        joined = re.sub(r"fine[^a-z0-9]tun", "finetun", (name or "").lower())
        for word in re.split(r"[^a-z0-9]+", joined):
            if _WORD.fullmatch(word):
                return word
    return None
