"""What a TensorRT engine is made from beside the checkpoint: texts, adapters, a draft's weights.

Everything is a folder of this machine: the tools that read them have no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from build_engines.checkpoints.source import CHECKPOINT_DIR
from build_engines.errors import ChoiceError
from build_engines.recipe import Order
from build_engines.stages import folder_state
from build_engines.tensorrt.calibration import calibration_folder
from build_engines.tensorrt.commands import Places
from build_engines.tensorrt.engine_options import EngineOptions
from build_engines.tensorrt.toolchain import ToolSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInputs:
    """The folders that the tools read. `checkpoint` is None while it is not fetched."""

    checkpoint: Path | None
    calibration: Path | None = None
    adapters: Mapping[str, Path] = field(default_factory=dict)  # by name
    draft: Path | None = None

    @classmethod
    def of(cls, order: Order, options: EngineOptions, settings: ToolSettings) -> EngineInputs:
        """Raises ChoiceError for a folder that is needed and not there."""
        return cls(
            checkpoint=order.fetched,
            calibration=calibration_folder(settings) if options.is_calibrated else None,
            adapters=_adapters(options),
            draft=_draft(options),
        )

    @property
    def symbolic(self) -> Places:
        """The same names wherever the folders are: what a stage's hash is made of."""
        return Places(
            examples=PurePath("examples"),
            checkpoint=PurePath("checkpoint"),
            calibration=None if self.calibration is None else PurePath("calibration"),
            adapters=tuple(PurePath(f"adapter{i}") for i in range(len(self.adapters))),
            draft=None if self.draft is None else PurePath("draft"),
        )

    @property
    def state(self) -> list[list[str | int]]:
        """What tells that the folders have not changed, the checkpoint left out."""
        folders = [self.calibration, *self.adapters.values(), self.draft]
        return [state for folder in folders if folder for state in folder_state(folder)]

    def places(self, examples: PurePath, root: Path) -> Places:
        """Where everything is. `root` is the build's folder, in which the checkpoint will be."""
        return Places(
            examples=examples,
            checkpoint=self.checkpoint or root / "fetch" / CHECKPOINT_DIR,
            calibration=self.calibration,
            adapters=tuple(self.adapters.values()),
            draft=self.draft,
        )


def _adapters(options: EngineOptions) -> dict[str, Path]:
    if options.lora is None or not options.lora.adapters:
        return {}
    from build_engines.lora.adapter import check_adapter_name

    named = {name: Path(given).expanduser() for name, given in options.lora.adapters.items()}
    for name, path in named.items():
        check_adapter_name(name)
        if not path.is_dir():
            raise ChoiceError(
                f"the adapter {name} is {path}, which is no folder here: download it, or leave it "
                "out, give lora.target_modules, and add it to the model that is built"
            )
    return {name: path.absolute() for name, path in named.items()}


def _draft(options: EngineOptions) -> Path | None:
    drafting = options.drafting
    if drafting is None or not drafting.has_own_script:
        return None
    folder = Path(drafting.draft_model or "").expanduser()
    if not (folder / "config.json").is_file():
        raise ChoiceError(
            f"speculative.draft_model is {drafting.draft_model}, which is no folder with "
            f"config.json: give the folder of {drafting.mode}'s weights"
        )
    return folder.absolute()
