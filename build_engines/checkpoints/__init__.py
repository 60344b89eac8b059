"""What models are built from: finding, fetching, opening and measuring checkpoints."""
