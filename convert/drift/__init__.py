"""What differs between two checkpoints: in their bytes, in each layer, in what they say."""
