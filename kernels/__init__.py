"""What must run fast on a GPU."""
