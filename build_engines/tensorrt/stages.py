"""The stages of a TensorRT engine: what each runs, what its hash is made of, what it leaves.

Knows nothing of which choices are possible: engine_options.py has made them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from build_engines.artefacts.artefact import SpecialTokens
from build_engines.checkpoints.architecture import Architecture
from build_engines.checkpoints.source import source_facts
from build_engines.checkpoints.special_tokens import special_tokens
from build_engines.errors import ConversionError, ToolError
from build_engines.families.family import EngineFlow
from build_engines.gpu.fit import Effort, effort
from build_engines.gpu.gpus import Gpu
from build_engines.lora.stage import adapters_of
from build_engines.recipe import Order, Produced
from build_engines.stages import Stage, StageContext, builds_dir
from build_engines.tensorrt.calibration import DATA_SETS, require_texts
from build_engines.tensorrt.commands import Places, build_command, checkpoint_command, show
from build_engines.tensorrt.engine_config import read_engine_config
from build_engines.tensorrt.engine_facts import draft_len, engine_facts
from build_engines.tensorrt.engine_options import EngineOptions
from build_engines.tensorrt.inputs import EngineInputs
from build_engines.tensorrt.toolchain import (
    EXAMPLES,
    PINNED_VERSION,
    Job,
    ToolSettings,
    find_toolchain,
    require_gpu,
    require_tools,
)
from build_engines.tensorrt.xgrammar_info import FILE_NAME, write_tokenizer_info
from build_engines.tokenizers.stage import TOKENIZER, WriteTokenizer, tokenizer_inputs

BUILD = "build"
_TOKENIZER_BYTES = 64 << 20
_TOOLS = {"tensorrt_llm": PINNED_VERSION}
_OUTPUT = PurePath("output")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStages:
    """The stages of one engine."""

    order: Order
    flow: EngineFlow
    architecture: Architecture
    options: EngineOptions
    inputs: EngineInputs
    settings: ToolSettings
    gpus: list[Gpu]
    tokenizing: WriteTokenizer

    def tokenizer(self) -> Stage:
        """The tokenizer's files, and the vocabulary as grammars need it."""
        return Stage(
            name=TOKENIZER,
            inputs={
                **tokenizer_inputs(self.order, self.options.limits.max_seq_len),
                "eos_ids": self.order.spec.tokens.eos_ids,
            },
            run=self._run_tokenizer,
            required_bytes=_TOKENIZER_BYTES,
        )

    def checkpoint(self) -> Stage:
        """A TensorRT-LLM checkpoint. What the command says of places is no input of its hash."""
        takes = self._effort()
        symbolic = self._checkpoint_command(self.inputs.symbolic, _OUTPUT)
        return Stage(
            name=self._checkpoint_name,
            inputs={"command": symbolic, "data": self.inputs.state, "tools": _TOOLS},
            run=self._run_checkpoint,
            required_bytes=takes.checkpoint_bytes,
            required_memory_bytes=takes.memory_bytes,
            takes=takes.convert,
            commands=(self._shown(self._checkpoint_command, self._checkpoint_name),),
            check=self._require_all,
        )

    def _require(self) -> None:
        require_gpu(self.gpus)
        require_tools(self.settings)

    def _require_all(self) -> None:
        if self.options.is_calibrated:
            require_texts(self.settings, self.options.calibrated_part, DATA_SETS)
        self._require()

    def build(self) -> Stage:
        """An engine; it runs on the kind of GPU that it was built on, and on no other."""
        takes = self._effort()
        return Stage(
            name=BUILD,
            inputs={
                "command": build_command(
                    self.options, self.inputs.symbolic, PurePath("checkpoint"), _OUTPUT
                ),
                "gpus": sorted({gpu.name for gpu in self.gpus}),
                "tools": _TOOLS,
            },
            run=self._run_build,
            required_bytes=takes.checkpoint_bytes,
            required_memory_bytes=takes.checkpoint_bytes,
            takes=takes.build,
            commands=(self._shown(self._build_command, BUILD),),
            check=self._require,
        )

    def describe(self, done: Mapping[str, Path]) -> Produced:
        """What the engine's own config.json says."""
        found = read_engine_config(done[BUILD])
        return Produced(
            format="tensorrt_engine",
            source=source_facts(self.order.source, done["fetch"]),
            tools={**_TOOLS, "gpu": ", ".join(sorted({gpu.name for gpu in self.gpus}))},
            limits=found.limits(draft_len(found, self.options.drafting)),
            tokens=self._special_tokens(done[TOKENIZER]),
            engine=engine_facts(found, self.architecture, self.options),
            adapters=adapters_of(done),
        )

    @property
    def _checkpoint_name(self) -> str:
        return "quantize" if self.options.is_calibrated else "convert"

    def _effort(self) -> Effort:
        is_calibrated = self.options.is_calibrated
        return effort(self.architecture, self.options.quantization, is_calibrated=is_calibrated)

    def _checkpoint_command(self, places: Places, output: PurePath) -> tuple[str, ...]:
        return checkpoint_command(self.flow, self.options, places, output)

    def _build_command(
        self, places: Places, output: PurePath, checkpoint: PurePath | None = None
    ) -> tuple[str, ...]:
        source = checkpoint or output.parent / self._checkpoint_name
        return build_command(self.options, places, source, output, len(self.gpus) or None)

    def _shown(self, command: Callable[[Places, PurePath], tuple[str, ...]], stage: str) -> str:
        """The command for --plan, with the stages' folders without their hashes."""
        root = builds_dir(self.order.home, self.order.spec.name, self.order.variant.name)
        places = self.inputs.places(self.settings.examples or PurePath(EXAMPLES[0]), root)
        job = Job(
            command=command(places, root / stage),
            reads=places.inputs,
            writes=(root / stage,),
            cwd=root,
            log=root / "build.log",
        )
        return show(find_toolchain(self.settings).show(job))

    def _run_tokenizer(self, out: Path, context: StageContext) -> None:
        assert self.order.fetched is not None
        self.tokenizing(
            self.order.fetched,
            out / "tokenizer",
            max_seq_len=self.options.limits.max_seq_len,
            chat_template=self.order.spec.chat_template,
        )
        write_tokenizer_info(
            out / "tokenizer" / "tokenizer.json",
            self._special_tokens(out).eos_ids,
            self.architecture.vocab_size,
            out / FILE_NAME,
        )

    def _special_tokens(self, stage: Path) -> SpecialTokens:
        return special_tokens(self.order.spec.tokens, stage / "tokenizer")

    def _run_checkpoint(self, out: Path, context: StageContext) -> None:
        self._run(self._checkpoint_command, out, context)
        _expect(out, "safetensors", self.options.world_size)

    def _run_build(self, out: Path, context: StageContext) -> None:
        source = context.done[self._checkpoint_name]

        def command(places: Places, output: PurePath) -> tuple[str, ...]:
            return self._build_command(places, output, source)

        self._run(command, out, context)
        self._check_engine(out)

    def _run(
        self,
        command: Callable[[Places, PurePath], tuple[str, ...]],
        out: Path,
        context: StageContext,
    ) -> None:
        if not self.gpus:
            raise ToolError(
                "there is no NVIDIA GPU here (nvidia-smi lists none): build the engine on a "
                "machine with the kind of GPU that will serve it"
            )
        toolchain = find_toolchain(self.settings)
        root = context.log.parent
        places = self.inputs.places(toolchain.open(root, context.log), root)
        toolchain.run(
            Job(
                command=command(places, out),
                reads=places.inputs,
                writes=(out,),
                cwd=root,
                log=context.log,
            )
        )

    def _check_engine(self, out: Path) -> None:
        """Raises ConversionError where the engine is not what was asked for."""
        found, asked = read_engine_config(out), self.options
        pairs = {
            "max_seq_len": (found.max_seq_len, asked.limits.max_seq_len),
            "max_input_len": (found.max_input_len, asked.limits.max_input_len),
            "tp_size": (found.tp_size, asked.tp_size),
            "pp_size": (found.pp_size, asked.pp_size),
        }
        for name, (built, wanted) in pairs.items():
            if built < wanted or (name.endswith("p_size") and built != wanted):
                raise ConversionError(
                    f"the engine was built with {name} {built}, {wanted} was asked for: see what "
                    "trtllm-build says in the build's log"
                )


def _expect(folder: Path, suffix: str, world_size: int) -> None:
    """Raises ConversionError unless a tool has left what it should: it may fail with exit 0."""
    names = ["config.json", *(f"rank{rank}.{suffix}" for rank in range(world_size))]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ConversionError(
            f"the tool has ended well and written no {', '.join(missing)}: see the build's log"
        )
