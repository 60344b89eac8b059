"""The stages of an `llm_api` artefact, and what the manifest says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from build_engines.artefacts.artefact import DraftingFacts, EngineFacts, Limits
from build_engines.assembly import link_or_copy
from build_engines.checkpoints.architecture import Architecture
from build_engines.checkpoints.needed_files import needed_names
from build_engines.checkpoints.source import source_facts
from build_engines.checkpoints.special_tokens import special_tokens
from build_engines.errors import ChoiceError
from build_engines.gpu.gpus import Gpu
from build_engines.llm_api.options import DRAFT_DIR, llm_options
from build_engines.llm_api.quantize import QUANTIZE, needs_quantizing, quantize_stage
from build_engines.lora.files import ADAPTERS_DIR
from build_engines.lora.stage import ADAPTERS, adapters_of, adapters_stages
from build_engines.recipe import Order, Produced
from build_engines.stages import Stage, StageContext, folder_state
from build_engines.tensorrt.engine_options import EngineLimits
from build_engines.tensorrt.toolchain import PINNED_VERSION, ToolSettings
from build_engines.tokenizers.stage import TOKENIZER, WriteTokenizer, tokenizer_stage
from build_engines.variants import Lora

OPTIONS_FILE = "llm_options.json"
CONVERT, DRAFT, OPTIONS = "convert", "draft", "options"
_TOOLS = {"tensorrt_llm": PINNED_VERSION}

# stage -> folder of the artefact
FOLDERS = {
    TOKENIZER: "tokenizer",
    CONVERT: "checkpoint",
    QUANTIZE: "checkpoint",
    ADAPTERS: ADAPTERS_DIR,
    DRAFT: DRAFT_DIR,
    OPTIONS: "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmApiMaking:
    """The stages of one artefact."""

    order: Order
    architecture: Architecture
    limits: EngineLimits
    settings: ToolSettings
    gpus: list[Gpu]
    tokenizing: WriteTokenizer

    def stages(self) -> tuple[Stage, ...]:
        """Those that the variant needs, in order."""
        variant = self.order.variant
        weights = self._convert()
        if needs_quantizing(self.order):
            weights = quantize_stage(self.order, self.architecture, self.settings, self.gpus)
        num_layers = self.architecture.num_layers
        adapters = adapters_stages(variant.lora, kind="llm_api", num_layers=num_layers)
        stages = [self._tokenizer(), weights, *adapters]
        if variant.speculative is not None:
            stages.append(self._draft(variant.speculative.draft_model))
        return (*stages, self._options())

    def describe(self, done: Mapping[str, Path]) -> Produced:
        """The numbers are the options': the backend has no engine that could say others."""
        order, limits, variant = self.order, self.limits, self.order.variant
        speculative = variant.speculative
        options = json.loads((done[OPTIONS] / OPTIONS_FILE).read_text(encoding="utf-8"))
        return Produced(
            format="huggingface",
            source=source_facts(order.source, done["fetch"]),
            tools=dict(_TOOLS),
            limits=Limits(
                max_seq_len=limits.max_seq_len,
                max_input_len=limits.max_input_len,
                vocab_size=self.architecture.vocab_size,
            ),
            tokens=special_tokens(order.spec.tokens, done[TOKENIZER]),
            engine=EngineFacts(
                max_batch_size=limits.max_batch_size,
                max_num_tokens=limits.max_num_tokens,
                kv_cache=None if variant.kv_cache == "auto" else variant.kv_cache,
                tp_size=variant.tp_size,
                pp_size=variant.pp_size,
                ep_size=variant.ep_size,
                max_lora_rank=variant.lora.max_rank if variant.lora else None,
                drafting=None
                if speculative is None
                else DraftingFacts(
                    mode=speculative.mode,
                    max_draft_len=options["speculative_config"]["max_draft_len"],
                ),
            ),
            adapters=adapters_of(done),
        )

    def _tokenizer(self) -> Stage:
        length = self.limits.max_seq_len
        return tokenizer_stage(self.order, max_seq_len=length, tools={}, write=self.tokenizing)

    def _convert(self) -> Stage:
        """The checkpoint's own files, without code and without the weights in other forms."""
        return Stage(name=CONVERT, inputs={}, run=lambda out, context: self._take_checkpoint(out))

    def _draft(self, draft_model: str | None) -> Stage:
        folder = _folder(draft_model or "", "speculative.draft_model")
        return Stage(
            name=DRAFT,
            inputs={"draft": folder_state(folder)},
            run=lambda out, context: _take_files(folder, out),
        )

    def _options(self) -> Stage:
        variant = self.order.variant
        options = llm_options(variant, self.limits, adapter_modules(variant.lora))

        def run(out: Path, context: StageContext) -> None:
            text = json.dumps(options, indent=2, sort_keys=True)
            (out / OPTIONS_FILE).write_text(text + "\n", encoding="utf-8")

        return Stage(name=OPTIONS, inputs={"options": options}, run=run)

    def _take_checkpoint(self, out: Path) -> None:
        assert self.order.fetched is not None
        _take_files(self.order.fetched, out)


def _take_files(folder: Path, out: Path) -> None:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    for name in needed_names(names):
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy((folder / name).resolve(), target)


def _folder(given: str, what: str) -> Path:
    folder = Path(given).expanduser()
    if not given or not folder.is_dir():
        raise ChoiceError(f"{what} is {given or 'not given'}: give a folder on this machine")
    return folder.absolute()


def adapter_modules(lora: Lora | None) -> tuple[str, ...]:
    """What the adapters on this machine say that they change, where they name it one by one."""
    found: set[str] = set()
    for given in lora.adapters.values() if lora else ():
        path = Path(given).expanduser() / "adapter_config.json"
        if not path.is_file():
            continue
        try:
            named = json.loads(path.read_text(encoding="utf-8"))["target_modules"]
        except (ValueError, KeyError, TypeError):  # the adapters' own stage tells what is wrong
            continue
        if isinstance(named, list):
            found |= set(named)
    return tuple(sorted(found))
