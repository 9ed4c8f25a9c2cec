"""What people run: open a checkpoint, plan, run, verify, and the command line around them."""
