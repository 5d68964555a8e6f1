"""The network families and their training."""
