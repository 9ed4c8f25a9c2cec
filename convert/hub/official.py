"""Sizes and SHA-256 of the files of the two official repositories, as they were published.

A weights file must be this one whatever the Hub says now; small files may change with a later revision.

Source: openai/gpt-oss-20b at 6cee5e81ee83917806bbde320786a8fb61efebee and openai/gpt-oss-120b at
b5c939de8f754692c1647ca79fbf85e8c1e70f8a. Configs, indexes and the sizes of all shards were also rebuilt from the
model's shapes; a digest that is not known is None.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """What a file was when it was published."""

    n_bytes: int
    sha256: str | None


@dataclass(frozen=True)
class OfficialRepository:
    """Its revision, and its files by name."""

    commit: str
    files: dict[str, Published]


_SAME = {
    "chat_template.jinja": Published(16_738, "a4c9919cbbd4acdd51ccffe22da049264b1b73e59055fa58811a99efbd7c8146"),
    "generation_config.json": Published(177, "f9970ada892d2d1f72e3ed0a6535ccebadd11897318794ca671d8c7014c957da"),
    "special_tokens_map.json": Published(98, "dd5e191d20c12d2fee1da5bae14ca1db0f5f4215300af691f23cdee97120a293"),
    "tokenizer.json": Published(27_868_174, "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3"),
    "tokenizer_config.json": Published(4_200, "9279e942392b742d633c7adbb89ebe002c98399db8926a7af5125c726f404070"),
}

_SHARDS_20B = (
    (4_792_272_488, "16d0f997dcfc4462089d536bffe51b4bcea2f872f5c430be09ef8ed392312427"),
    (4_798_702_184, "4fbe328ab445455d6f58dc73852b85873bd626986310abd91cd4d2ce3245eaea"),
    (4_170_342_232, "a18106b209e9ab35c3406db4f6f12a927364a058b21e9d1373d682e20674b303"),
)
_SHARDS_120B = (
    (4_625_017_896, "695218884684c611fe08a74751ee443f971e9bd9bc062edba822da3fe45969b7"),
    (4_115_586_736, "a881aa5f561b26a22b14a8262aa61849ace349ffd73d74769e030ac90a1fcf8a"),
    (4_625_017_888, "022478dd04398c5bdb545a5be0a6437ecc2eb53d1dbd29edafcfff4b3ddf0a41"),
    (4_115_586_752, "47aee9e7b9d5bedb215042c01ccededd9bd9c30b0dddea862dc2506b9d6c74de"),
    (4_625_017_896, "f6c2752acda607b1d5ca52df9e75c1b9b2761e6875ff10c9bd6ddac473c0262e"),
    (4_115_586_696, "0c8dd401544c31cb93b8459eee7da20ea2a07626a59455d7d92b85257df9b46c"),
    (4_625_017_856, "28d839f2e027985a8b14e45f2323798862eddb7770ee9800ea6b7c803abee489"),
    (4_060_267_176, "c8958c5f183c04f6ea959cfd90562b5128124154b2bbf979b8a22b9405b30ed8"),
    (4_625_017_896, "bf1f2a88868ffc37d520dcf77d26f0e823710b5e682d473ff10f6974fa3b7517"),
    (4_170_906_304, "f72d34a4004241b45c332b61f8ffa124e9a913bc1ab442b66e717d3e94e741ce"),
    (4_625_017_896, "f48c867c2cb0a44bfc2f8768cb98e4aec9a350946fceacfebdcad5d32ad4a471"),
    (4_115_586_752, "a06851b2cfd35f48722f823bc1ab8f7bcb4a878a5b8e975f4d3544f230454eeb"),
    (4_064_660_808, "3af33667c307e20ae2a7648ea52653de46dd0171601ec5c696e47a2f5d5bf1e4"),
    (4_625_017_896, "bcbcb74b043e071d1e05471d500d74dcf661175e00878ed302ccdf1801a75aef"),
    (4_115_586_736, "54b1be1609696c307cc5ca117b1fa54feaddebffa04e9c2db117652a01964230"),
)


def _shards(published: tuple[tuple[int, str], ...]) -> dict[str, Published]:
    last = len(published) - 1
    return {f"model-{number:05d}-of-{last:05d}.safetensors": Published(*one) for number, one in enumerate(published)}


_INDEX = "model.safetensors.index.json"

OFFICIAL = {
    "openai/gpt-oss-20b": OfficialRepository(
        "6cee5e81ee83917806bbde320786a8fb61efebee",
        _SAME
        | _shards(_SHARDS_20B)
        | {
            "config.json": Published(1_806, "3a2a26ded679375b7928ddeca59764df7cea83220c1961035f6d6e232659e9ce"),
            _INDEX: Published(36_355, "0e085b977c4c9942f85938828e8c989ed7d5cdabf852e4da6a67c116cd502cd1"),
            "original/config.json": Published(376, None),
            "original/model.safetensors": Published(13_761_300_984, None),
            "metal/model.bin": Published(13_750_886_400, None),
        },
    ),
    "openai/gpt-oss-120b": OfficialRepository(
        "b5c939de8f754692c1647ca79fbf85e8c1e70f8a",
        _SAME
        | _shards(_SHARDS_120B)
        | {
            "config.json": Published(2_089, "933aeb666a3fd851133ddd7686414f369bc564c4185fb5704416550879f10566"),
            _INDEX: Published(54_511, "ede2655fdc05008561983b6e0829c600727c28d591e071077377059f03a6c00e"),
            "metal/model.bin": Published(65_238_253_568, None),
        },
    ),
}
"""By repository."""
