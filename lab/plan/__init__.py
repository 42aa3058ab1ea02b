"""What will be done to the kernel: typed steps, worked out from the model alone. Pure."""
