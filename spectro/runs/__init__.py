"""One run: from a configuration to its run directory."""
