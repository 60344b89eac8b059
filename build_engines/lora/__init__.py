"""LoRA adapters, as each kind of engine takes them."""
