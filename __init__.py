"""gptoss-convert: gpt-oss weights between layouts, byte for byte, with a proof after every conversion."""

__version__ = "0.1.0"
