"""Checkpoints on the Hugging Face Hub: found by id, read by their headers, downloaded and checked."""
