"""The texts that models are compared on: five conversations in Harmony's format, of our own writing.

Each is longer than the sliding window of 128 tokens in the official vocabulary, and is about something else, for what a
conversion or a fine-tune breaks it often breaks in one kind of text alone. No two begin alike.
"""

from __future__ import annotations

_CHAT = (
    (
        "system",
        "You are a patient assistant who knows a kitchen.\nKnowledge cutoff: 2024-06\n\nReasoning: medium\n\n"
        "# Valid channels: analysis, commentary, final. Channel must be included for every message.",
    ),
    ("user", "My sourdough never rises as much as my neighbour's, although we use the same flour. What could it be?"),
    (
        "assistant<|channel|>analysis",
        "Same flour, so think of the starter's strength, the temperature of the kitchen, how long the first rise is, "
        "and how the loaf is shaped. Ask for little, suggest one change at a time.",
    ),
    (
        "assistant<|channel|>final",
        "Most often it is the **temperature**, not the flour. A kitchen at 19 °C needs nearly twice as long as one at "
        "25 °C.\n\n1. Feed the starter twice a day for three days; it should double within six hours.\n"
        "2. Let the dough rise until it has grown by half, whatever the clock says.\n"
        "3. Shape it tightly, so that the surface can hold the gas.\n\n"
        "Change one thing per loaf, and write down what you did.",
    ),
    ("user", "The starter takes eleven hours to double. Is it dead?"),
    (
        "assistant<|channel|>final",
        "No, only sleepy. Keep it somewhere warm, feed it equal weights of flour and water, and throw most of it away "
        "before each feeding. After four or five days it should be quick enough to lift a loaf.",
    ),
)

_TOOLS = (
    ("system", "Calls to these tools must go to the commentary channel: 'functions'."),
    (
        "developer",
        "# Instructions\n\nAnswer questions about trains. Never guess a time.\n\n# Tools\n\n## functions\n\n"
        "namespace functions {\n\n// Departures from a station, soonest first.\ntype departures = (_: {\n"
        "// Name of the station\nstation: string,\n// Local time, HH:MM\nafter?: string,\n"
        'class?: "regional" | "express", // default: regional\n}) => any;\n\n} // namespace functions',
    ),
    ("user", "When does the next express leave Utrecht after a quarter past five?"),
    (
        "assistant<|channel|>analysis",
        "The user wants express trains from Utrecht after 17:15. The tool has what is needed; call it.",
    ),
    (
        "assistant<|channel|>commentary to=functions.departures <|constrain|>json",
        '{"station": "Utrecht Centraal", "after": "17:15", "class": "express"}',
    ),
    (
        "functions.departures to=assistant<|channel|>commentary",
        '[{"time": "17:24", "to": "Zwolle", "track": "11b", "late_minutes": 0}, '
        '{"time": "17:38", "to": "Eindhoven", "track": "5", "late_minutes": 7}]',
    ),
    (
        "assistant<|channel|>final",
        "The next express leaves at **17:24** from track 11b, to Zwolle, and is on time. The one after it goes to "
        "Eindhoven at 17:38 and is seven minutes late.",
    ),
    ("user", "And from Amersfoort, an hour later?"),
    (
        "assistant<|channel|>commentary to=functions.departures <|constrain|>json",
        '{"station": "Amersfoort Centraal", "after": "18:15", "class": "express"}',
    ),
)

_LANGUAGES = (
    ("user", "Warum ist der Himmel abends rot, mittags aber blau? Bitte in zwei Sätzen."),
    (
        "assistant<|channel|>final",
        "Abends läuft das Sonnenlicht durch viel mehr Luft, und das Blau wird unterwegs zur Seite gestreut. Übrig "
        "bleibt, was kaum gestreut wird: Gelb und Rot.",
    ),
    ("user", "¿Puedes explicármelo en español, como a una niña de ocho años?"),
    (
        "assistant<|channel|>final",
        "La luz del sol lleva todos los colores. El azul rebota en el aire como una pelota, y por eso lo vemos en todo "
        "el cielo; por la tarde la luz viene de tan lejos que el azul se pierde por el camino.",
    ),
    ("user", "日本語でも一文で説明してください。"),
    (
        "assistant<|channel|>final",
        "夕方は太陽の光が空気の中を長く進むので、青い光は途中で散らばり、赤い光だけが目に届きます。",
    ),
    ("user", "Теперь по-русски, пожалуйста, и совсем коротко."),
    (
        "assistant<|channel|>final",
        "Вечером свет идёт через толстый слой воздуха: синий рассеивается, красный остаётся.",
    ),
    ("user", "وبالعربية؟"),
    ("assistant<|channel|>final", "عند الغروب يقطع الضوء هواءً أكثر، فيتبدّد الأزرق ويبقى الأحمر."),
)

_CODE = (
    ("developer", "# Instructions\n\nPython 3.11. Show the smallest change that mends the code."),
    (
        "user",
        "This should merge overlapping intervals, but [(1, 4), (2, 3)] comes out as [(1, 3)]. Where is the mistake?\n\n"
        "```python\ndef merge(intervals):\n    merged = []\n    for begin, end in sorted(intervals):\n"
        "        if merged and begin <= merged[-1][1]:\n            merged[-1] = (merged[-1][0], end)\n"
        "        else:\n            merged.append((begin, end))\n    return merged\n```",
    ),
    (
        "assistant<|channel|>analysis",
        "When an interval lies inside the one before, its end is smaller; the code takes it all the same. The larger "
        "of the two ends is needed.",
    ),
    (
        "assistant<|channel|>final",
        "The end of the merged interval must be the larger of the two:\n\n```python\n"
        "            first, last = merged[-1]\n            merged[-1] = (first, max(last, end))\n```\n\n"
        "`(2, 3)` lies inside `(1, 4)`, so its end, 3, replaced the 4. A test that would have found it:\n\n"
        "```python\nassert merge([(1, 4), (2, 3)]) == [(1, 4)]\nassert merge([]) == []\n```",
    ),
    ("user", "Now the same in SQL, for a table spans(begin_at, end_at)."),
)

_MATHS = (
    ("system", "Reasoning: high"),
    ("user", "How many whole numbers from 1 to 1000 can be divided by neither 3 nor 5, and what is their sum?"),
    (
        "assistant<|channel|>analysis",
        "Count by inclusion and exclusion. Multiples of 3: floor(1000 / 3) = 333. Multiples of 5: 200. "
        "Multiples of 15: floor(1000 / 15) = 66. So 333 + 200 - 66 = 467 are divisible by one of them, and "
        "1000 - 467 = 533 by none.\n\n"
        "Sums. All: 1000 * 1001 / 2 = 500500. Multiples of 3: 3 * 333 * 334 / 2 = 166833. Multiples of 5: "
        "5 * 200 * 201 / 2 = 100500. Multiples of 15: 15 * 66 * 67 / 2 = 33165. "
        "So 166833 + 100500 - 33165 = 234168, and 500500 - 234168 = 266332.\n\n"
        "Check the mean: 266332 / 533 is about 499.7, close to 500.5. Plausible.",
    ),
    (
        "assistant<|channel|>final",
        "There are **533** such numbers, and their sum is **266 332**.\n\n"
        "$$1000 - (333 + 200 - 66) = 533$$\n\n$$500500 - (166833 + 100500 - 33165) = 266332$$",
    ),
)


def _harmony(turns: tuple[tuple[str, str], ...]) -> str:
    """Header and text of each turn as one text; a call ends with <|call|>, the last final answer with <|return|>."""
    parts = []
    for number, (header, text) in enumerate(turns):
        is_last = number == len(turns) - 1
        end = "<|call|>" if "to=functions" in header else "<|return|>" if is_last and "final" in header else "<|end|>"
        parts.append(f"<|start|>{header}<|message|>{text}{end}")
    return "".join(parts)


TEXTS: dict[str, str] = {
    name: _harmony(turns)
    for name, turns in (
        ("chat", _CHAT),
        ("tool call", _TOOLS),
        ("languages", _LANGUAGES),
        ("code", _CODE),
        ("maths", _MATHS),
    )
}
"""Domain -> conversation."""
