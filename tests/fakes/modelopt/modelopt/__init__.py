"""NVIDIA ModelOpt, a stand-in."""
