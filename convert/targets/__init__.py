"""One module per layout that can be written: a Checkpoint to planned files."""
