"""LightningCLI with this project's links and checks."""

import os
import pkgutil
import sys
from pathlib import Path
from typing import Annotated, Any

import lightning
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

import datamodules
import extract
from extract.errors import UserError
from extract.llm import LLM
from extract.store import VERIFY_VARIABLE, always_verified
from extract.utils import Range, check_value, digest
from probe.cli.config_files import find_config
from probe.cli.parser import Parser
from probe.cli.saved_config import SavedConfig
from probe.cli.stop_at_batch import StopAtBatch, stage
from probe.models import CheckpointFolders, probe_class, read_checkpoint, use_atomic_checkpoints
from probe.rag import RagEvaluation
from probe.results import Artifacts

SEED_EVERYTHING = Annotated[int, Range(0, 2**32 - 1)]
"""Seeds that Lightning accepts."""


class ConfigFile(ActionConfigFile):
    """`-c`: a file of the working folder, or a shipped config by its name."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Merge the file over what earlier arguments gave."""
        super().__call__(parser, cfg, find_config(values), option_string)  # type: ignore[no-untyped-call]


class StageParser(Parser, LightningArgumentParser):
    """Lightning's parser with one-line errors."""


class StageCLI(LightningCLI):
    """One command for every stage: a model, a data module, callbacks, and one LLM and score store for all of them."""

    @classmethod
    @always_verified(False)  # what `--verify` changes ends with the stage
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
            save_config_callback=SavedConfig,
            save_config_kwargs={"save_to_log_dir": False},
            parser_class=StageParser,
            auto_configure_optimizers=False,
        )

    def init_parser(self, **options: Any) -> LightningArgumentParser:
        """Make a parser as Lightning does, but with a `-c` that finds shipped configs."""
        options.setdefault("dump_header", [f"lightning.pytorch=={lightning.__version__}"])
        parser = self.parser_class(**options)
        about = "A YAML file or the name of a shipped config; a further one is merged over the former."
        parser.add_argument("-c", "--config", action=ConfigFile, help=about)
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add `llm:` and `store:`, and link them to every class that takes them; sizes go from data to model."""
        parser.add_subclass_arguments(LLM, "llm", required=False, help="The frozen LLM: configs/llm/*.yaml.")
        parser.add_argument("--store", type=str, default="stores/niah", help="Folder of the score store.")
        about = "Hash every shard of the stores, also those that have not changed since they were verified."
        parser.add_argument("--verify", action="store_true", help=about)
        for target in ("model", "data", "trainer.callbacks"):
            parser.link_arguments("llm", f"{target}.init_args.llm", apply_on="instantiate")
            parser.link_arguments("store", f"{target}.init_args.store")
        parser.link_arguments("data.hidden_size", "model.init_args.in_features", apply_on="instantiate")
        parser.link_arguments("data.num_heads", "model.init_args.num_heads", apply_on="instantiate")
        parser.link_arguments("data.offsets", "model.init_args.num_offsets", apply_on="instantiate")
        parser.link_arguments("data.probed_target", "model.init_args.target", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, and refuse numbers out of range before anything is done with them.

        Raises:
            UserError: naming the key.

        """
        super().parse_arguments(parser, args)
        if self.subcommand_config is not None:
            hints = {"seed_everything": SEED_EVERYTHING}
            for key, value in self.subcommand_config.as_dict().items():
                check_value(value, hints.get(key, Any), key)

    def before_instantiate_classes(self) -> None:
        """Let `--verify` reach every score store that the stage opens, in every process."""
        if self.subcommand_config is not None and self.subcommand_config.verify:
            os.environ[VERIFY_VARIABLE] = "1"

    def instantiate_trainer(self, **arguments: Any) -> Trainer:
        """Make the Trainer.

        Raises:
            UserError: its precision or strategy needs a package that is not installed.

        """
        try:
            trainer = super().instantiate_trainer(**arguments)
        except ImportError as error:
            raise UserError(f"trainer: {error}") from error
        use_atomic_checkpoints(trainer)
        # In this order: a stopped run saves its state before it releases the folders.
        trainer.callbacks.extend([StopAtBatch(), CheckpointFolders()])  # type: ignore[attr-defined]
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        with stage(self.trainer):
            super()._run_subcommand(subcommand)

    def predict(self, **arguments: Any) -> None:
        """Run Lightning's predict without keeping every prediction in memory."""
        self.trainer.predict(**{**arguments, "return_predictions": False})

    def test(self, **arguments: Any) -> None:
        """Run Lightning's test, without its table of metrics where one of our callbacks prints its own."""
        reported = any(isinstance(callback, Artifacts | RagEvaluation) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        self.trainer.test(**{**arguments, "verbose": arguments["verbose"] and not reported})

    def _parse_ckpt_path(self) -> None:
        """Take the model's settings from the checkpoint, save those that the user gives.

        Lightning's own version would silently let the checkpoint replace the class that the config names, and any
        setting.

        Raises:
            UserError: the checkpoint holds another class, or its weights do not fit a setting that the user gives.

        """
        if self.subcommand_config is None:
            return
        config = self.subcommand_config
        path = config.get("ckpt_path")
        if not path or path in ("last", "best", "hpc", "registry"):
            return
        checkpoint = read_checkpoint(Path(path))
        held, asked = checkpoint["probe"]["class"], config["model"]["class_path"]
        if (kind := probe_class(held)) is not pkgutil.resolve_name(asked):
            raise UserError(f"--ckpt_path {path} holds a {held}, but model.class_path is {asked}")
        saved = {name: value for name, value in checkpoint["hyper_parameters"].items() if not name.startswith("_")}
        given = self._given_settings()
        kind.check_structure(saved, given)
        common = sorted(saved.keys() & given.keys())
        changed = {name: given[name] for name in common if digest(given[name]) != digest(saved[name])}
        for name, value in changed.items():
            rank_zero_info(f"model.init_args.{name}: {value}; the checkpoint was trained with {saved[name]}")
        trained = {"model": {"class_path": asked, "dict_kwargs": {**saved, **changed}}}
        self.config = self.parser.parse_object({self.config["subcommand"]: trained}, self.config)

    def _given_settings(self) -> dict[str, Any]:
        """Settings of the model that the command line and its config files name; defaults are left out."""
        given = self.parser.parse_args(sys.argv[1:], defaults=False)[self.config["subcommand"]]
        found: dict[str, Any] = given.as_dict().get("model", {}).get("init_args", {})
        return found

    @property
    def subcommand_config(self) -> Any:
        """The parsed config of the chosen stage."""
        name = self.config.get("subcommand")
        return self.config[name] if name else None
