"""modelopt.torch."""
