"""What must run fast on a GPU: Triton kernels that read the stored bytes as they are. Linux only."""
