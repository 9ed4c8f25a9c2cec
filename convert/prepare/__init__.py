"""Does the model fit, what is the right file for the machine, and which command starts it: `gptoss-convert prepare`."""
