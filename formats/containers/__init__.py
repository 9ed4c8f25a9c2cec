"""How tensors lie in files: safetensors, GGUF."""
