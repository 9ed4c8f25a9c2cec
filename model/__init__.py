"""What gpt-oss is: its config, its tensors, its layouts, its tokenizer."""
