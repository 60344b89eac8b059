"""Writes a checkpoint's tokenizer and chat template as plain files; runs no code of the model."""
