"""One module per layout that can be read: files to a Checkpoint."""
