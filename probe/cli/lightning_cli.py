"""LightningCLI with this project's links, checks and one-line errors."""

import difflib
import pkgutil
import re
from pathlib import Path
from typing import Any, NoReturn

from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

import datamodules
import extract
from extract.errors import UserError
from extract.llm import LLM
from probe.models import probe_class, read_checkpoint
from probe.rag import RagEvaluation
from probe.results import Artifacts

_NOISE = re.compile(
    r"Does not validate against any of the Union subtypes|^- Expected a <class 'NoneType'>|"
    r"^(- )?(Subtypes|Errors|Given value|Given value type):.*"
)


class Parser(LightningArgumentParser):
    """Raises what a user got wrong as one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """The parts of jsonargparse's report that name the mistake, with a suggestion for a mistyped key."""
        lines = (_NOISE.sub("", line.strip()).strip(" -") for line in message.splitlines())
        text = " ".join(line for line in lines if line)
        unknown = re.search(r"(?:unrecognized arguments: --|ption ')([\w.]+)", text)
        hint = self._suggest(unknown.group(1)) if unknown and "did you mean" not in text else ""
        raise UserError((text[:300] + " …" if len(text) > 300 else text) + hint) from ex

    def _suggest(self, key: str) -> str:
        known = {name for action in self._actions for name in (action.dest, *_subkeys(action)) if name}
        close = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.6)
        return f" (did you mean '{close[0]}'?)" if close else ""


def _subkeys(action: Any) -> list[str]:
    """Keys of a stage, for a message of the parser above it."""
    stages = getattr(action, "choices", None)
    if not isinstance(stages, dict):
        return []
    return sorted({inner.dest for stage in stages.values() for inner in stage._actions})


class StageCLI(LightningCLI):
    """One command for every stage: a model, a data module, callbacks, and one shared LLM and store."""

    @classmethod
    def run_stage(cls) -> "StageCLI":
        """Parse `sys.argv` and run the stage."""
        for package in (extract, datamodules):  # jsonargparse finds a class by its bare name once it is imported
            for name in package.__all__:
                getattr(package, name)
        return cls(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=SaveConfigCallback,
            save_config_kwargs={"overwrite": True},
            parser_class=Parser,
            auto_configure_optimizers=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Top-level `llm:` and `store:`, linked to whatever takes them; sizes go from data to model."""
        parser.add_subclass_arguments(LLM, "llm", required=False, help="The frozen LLM: configs/llm/*.yaml.")
        parser.add_argument("--store", type=str, default="stores/niah", help="Folder of the score store.")
        for target in ("model", "data", "trainer.callbacks"):
            parser.link_arguments("llm", f"{target}.init_args.llm", apply_on="instantiate")
            parser.link_arguments("store", f"{target}.init_args.store")
        parser.link_arguments("data.hidden_size", "model.init_args.in_features", apply_on="instantiate")
        parser.link_arguments("data.num_heads", "model.init_args.num_heads", apply_on="instantiate")
        parser.link_arguments("data.offsets", "model.init_args.num_offsets", apply_on="instantiate")
        parser.link_arguments("data.probed_target", "model.init_args.target", apply_on="instantiate")

    def predict(self, **arguments: Any) -> None:
        """Lightning's predict, without keeping every prediction in memory."""
        self.trainer.predict(**{**arguments, "return_predictions": False})

    def test(self, **arguments: Any) -> None:
        """Lightning's test; a callback of ours prints the table, so Lightning's own would repeat it."""
        reported = any(isinstance(callback, Artifacts | RagEvaluation) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        self.trainer.test(**{**arguments, "verbose": arguments["verbose"] and not reported})

    def _parse_ckpt_path(self) -> None:
        """Check the checkpoint first, and that it holds the model that the config asks for."""
        if self.subcommand_config is None:
            return
        config = self.subcommand_config
        path = config.get("ckpt_path")
        if not path or path in ("last", "best", "hpc", "registry"):
            return
        checkpoint = read_checkpoint(Path(path))
        held, asked = checkpoint["probe"]["class"], config["model"]["class_path"]
        if probe_class(held) is not pkgutil.resolve_name(asked):
            raise UserError(f"--ckpt_path {path} holds a {held}, but model.class_path is {asked}")
        settings = {name: value for name, value in checkpoint["hyper_parameters"].items() if not name.startswith("_")}
        trained = {"model": {"class_path": asked, "dict_kwargs": settings}}
        self.config = self.parser.parse_object({self.config["subcommand"]: trained}, self.config)

    @property
    def subcommand_config(self) -> Any:
        """The parsed config of the chosen stage."""
        name = self.config.get("subcommand")
        return self.config[name] if name else None
