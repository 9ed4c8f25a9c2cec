"""What every gpt-oss tokenizer shares: the Harmony special tokens, the o200k split pattern, a chat template.

The 21 special tokens follow the text tokens; the published ids are 199998..200018. A smaller vocabulary keeps
the same 21 names in the same order, starting at another id.

Source: tiktoken `tiktoken_ext/openai_public.py` (o200k_base, o200k_harmony); openai/gpt-oss tokenizer_config.json.
"""

from __future__ import annotations

OFFICIAL_N_TEXT_TOKENS = 199_998
OFFICIAL_FIRST_SPECIAL = 199_998
N_SPECIAL_TOKENS = 21

BOS_TOKEN = "<|startoftext|>"
EOS_TOKEN = "<|return|>"
PAD_TOKEN = "<|endoftext|>"
CALL_TOKEN = "<|call|>"

_NAMED_TOKENS = {
    199_998: BOS_TOKEN,
    199_999: PAD_TOKEN,
    200_002: EOS_TOKEN,
    200_003: "<|constrain|>",
    200_005: "<|channel|>",
    200_006: "<|start|>",
    200_007: "<|end|>",
    200_008: "<|message|>",
    200_012: CALL_TOKEN,
    200_018: "<|endofprompt|>",
}

OFFICIAL_CHAT_TEMPLATE_SHA256 = "a4c9919cbbd4acdd51ccffe22da049264b1b73e59055fa58811a99efbd7c8146"

# In order: a word that ends in lower case, a word in upper case, up to three digits, punctuation, line ends, spaces.
O200K_PATTERN = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)

# A message is <|start|>author<|channel|>channel<|message|>text, ended by <|end|>, <|call|> or <|return|>.
CHAT_TEMPLATE = """\
{%- macro message(header, text, stop="<|end|>") -%}
<|start|>{{ header }}<|message|>{{ text }}{{ stop }}
{%- endmacro -%}
{%- macro text_of(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- else -%}
        {%- for part in content or [] -%}{{- part.text -}}{%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- set state = namespace(called="unknown", system="") -%}

{%- set state.system = model_identity | default("You are a test model that speaks the Harmony format.") -%}
{%- set state.system = state.system ~ "\\n\\nReasoning: " ~ (reasoning_effort | default("medium")) -%}
{%- set state.system = state.system ~ "\\n\\nChannels: analysis, commentary, final. Every message names one." -%}
{{- message("system", state.system) -}}

{%- if tools -%}
    {%- set state.system = "# Tools\\n\\nCall these as functions.NAME on the commentary channel, with JSON.\\n" -%}
    {%- for tool in tools -%}
        {%- set state.system = state.system ~ "\\n" ~ (tool.function | tojson) -%}
    {%- endfor -%}
    {{- message("developer", state.system) -}}
{%- endif -%}

{%- for turn in messages -%}
    {%- if turn.role in ["system", "developer"] -%}
        {{- message("developer", "# Instructions\\n\\n" ~ text_of(turn.content)) -}}
    {%- elif turn.role == "user" -%}
        {{- message("user", text_of(turn.content)) -}}
    {%- elif turn.role == "tool" -%}
        {%- set author = "functions." ~ (turn.name or state.called) ~ " to=assistant<|channel|>commentary" -%}
        {{- message(author, text_of(turn.content)) -}}
    {%- elif turn.role == "assistant" -%}
        {%- set last = loop.last and not add_generation_prompt -%}
        {%- set thinking = turn.thinking or turn.reasoning_content -%}
        {%- if thinking and (turn.tool_calls or last) -%}
            {{- message("assistant<|channel|>analysis", thinking) -}}
        {%- endif -%}
        {%- if turn.tool_calls -%}
            {%- if turn.content -%}{{- message("assistant<|channel|>commentary", text_of(turn.content)) -}}{%- endif -%}
            {%- set call = turn.tool_calls[0].function or turn.tool_calls[0] -%}
            {%- set state.called = call.name -%}
            {%- set sent = call.arguments if call.arguments is string else call.arguments | tojson -%}
            {%- set author = "assistant to=functions." ~ call.name ~ "<|channel|>commentary <|constrain|>json" -%}
            {{- message(author, sent, "<|call|>") -}}
        {%- else -%}
            {%- set stop = "<|return|>" if last else "<|end|>" -%}
            {{- message("assistant<|channel|>final", text_of(turn.content), stop) -}}
        {%- endif -%}
    {%- else -%}
        {{- raise_exception("Unknown role: " ~ turn.role) -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}
"""


def special_tokens(first_id: int = OFFICIAL_FIRST_SPECIAL) -> dict[int, str]:
    """The 21 special tokens by id, in id order, starting at `first_id`.

    Source: openai/gpt-oss-20b tokenizer_config.json, `added_tokens_decoder`.
    """
    official_ids = range(OFFICIAL_FIRST_SPECIAL, OFFICIAL_FIRST_SPECIAL + N_SPECIAL_TOKENS)
    return {
        first_id + place: _NAMED_TOKENS.get(official_id, f"<|reserved_{official_id}|>")
        for place, official_id in enumerate(official_ids)
    }
