"""The stage that makes a variant's LoRA adapters ready for its kind of engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from build_engines.artefacts.manifest import Adapter
from build_engines.errors import ChoiceError
from build_engines.stages import Stage, folder_state
from build_engines.variants import Lora

ADAPTERS = "adapters"  # the stage's name; it is published in files.ADAPTERS_DIR


def adapters_stages(lora: Lora | None, *, kind: str, num_layers: int) -> list[Stage]:
    """The stage, if there are adapters. Raises ChoiceError for one that is no folder here."""
    if lora is None or not lora.adapters:
        return []
    max_rank, folders = lora.max_rank, {name: _folder(name, lora) for name in lora.adapters}

    def run(out: Path) -> None:
        from build_engines.lora.adapter import check_adapter_name, write_adapter

        for name, folder in folders.items():
            check_adapter_name(name)
            write_adapter(folder, out / name, kind=kind, max_rank=max_rank, num_layers=num_layers)

    return [
        Stage(
            name=ADAPTERS,
            inputs={
                "kind": kind,
                "max_rank": max_rank,
                "adapters": {name: folder_state(path) for name, path in folders.items()},
            },
            run=lambda out, context: run(out),
        )
    ]


def adapters_of(done: Mapping[str, Path]) -> dict[str, Adapter]:
    """What the manifest says of them."""
    from build_engines.lora.adapter import read_adapters

    return read_adapters(done[ADAPTERS], "") if ADAPTERS in done else {}


def _folder(name: str, lora: Lora) -> Path:
    folder = Path(lora.adapters[name]).expanduser()
    if not folder.is_dir():
        raise ChoiceError(
            f"the adapter {name} is {lora.adapters[name]}: give a folder on this machine"
        )
    return folder.absolute()
