"""What a cross-validated run shows about labels: which may be wrong, what to label next, which classes look alike."""
