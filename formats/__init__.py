"""Bytes to arrays and back: codecs, containers, files. Knows no gpt-oss name, no torch, no Triton."""
