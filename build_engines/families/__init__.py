"""The families of models, and what can be built of each."""
