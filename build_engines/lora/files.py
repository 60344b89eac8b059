"""Names of an adapter's files in an artefact: what builds them and what serves them agree here."""

from __future__ import annotations

ADAPTERS_DIR = "adapters"
WEIGHTS_NAME = "model.lora_weights.npy"  # float16 [rows, width]
CONFIG_NAME = "model.lora_config.npy"  # int32 [rows, 3]: module, layer, rank
KINDS = ("tensorrt_llm", "llm_api")  # whose engines take adapters
