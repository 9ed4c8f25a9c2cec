"""How a tensor's elements are stored: one module per encoding."""
