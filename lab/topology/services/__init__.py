"""Services that the lab knows how to run, one file each."""
