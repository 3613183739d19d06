"""LightningCLI with this project's links and checks."""

import os
import pkgutil
import sys
from typing import Annotated, Any

import lightning
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

import datamodules
import extract
from extract.errors import UserError
from extract.llm import LLM
from extract.pipeline import Extraction
from extract.store import VERIFY_VARIABLE, always_verified
from extract.utils import DataConsole, Range, check_value, digest, show_progress, user_path
from probe.cli.config.checkpoint_paths import checkpoint_path
from probe.cli.config.config_files import find_config
from probe.cli.config.config_text import bound_texts, check_config
from probe.cli.config.places import reading, resolve_places
from probe.cli.config.safe import Safe, be_safe, check_command_line, check_switches
from probe.cli.config.saved_config import SavedConfig
from probe.cli.named_callbacks import add_named_callbacks, leave_out_listed, listed_callbacks, named_callbacks
from probe.cli.parser import Parser, refused_class, with_nulls
from probe.cli.stopping.requeue import job
from probe.cli.stopping.stop_at_batch import StopAtBatch, stage
from probe.cli.switches import apply_switches
from probe.cli.trainer_settings import check_trainer
from probe.models import CheckpointFolders, check_settings, probe_class, read_checkpoint, use_atomic_checkpoints
from probe.rag import RagEvaluation
from probe.results import Artifacts, metrics_table

SEED_EVERYTHING = Annotated[int, Range(0, 2**32 - 1)]
"""Seeds that Lightning accepts."""


class ConfigFile(ActionConfigFile):
    """`-c`: a file of the working folder, or a shipped config by its name."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Merge the file over what earlier arguments gave."""
        check_config(values)
        if (file := find_config(values)) != values:
            check_config(file)
        with reading(file):
            super().__call__(parser, cfg, file, option_string)  # type: ignore[no-untyped-call]


class StageParser(Parser, LightningArgumentParser):
    """Lightning's parser with one-line errors."""

    def parse_args(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Parse a command line on which a setting within a setting may be `null`, too."""
        argv = sys.argv[1:] if args is None else args
        return super().parse_args(with_nulls(argv), *more, **options)

    def dump(self, *config: Any, **options: Any) -> Any:
        """Write a config as text, without checking a second time what has been parsed: half of the cost."""
        return super().dump(*config, **{"skip_validation": True, **options})


def _keeps_predictions(callback: Callback) -> bool:
    """Whether a callback reads predictions: ScoreWriter, Lightning's writers and a user's own; not progress bars."""
    own = not type(callback).__module__.startswith("lightning.")
    reads = type(callback).on_predict_batch_end is not Callback.on_predict_batch_end
    return isinstance(callback, BasePredictionWriter) or (own and reads)


class StageCLI(LightningCLI):
    """One command for every stage: a model, a data module, callbacks, and one LLM and score store for all of them."""

    @classmethod
    @always_verified(False)  # what `--verify` changes ends with the stage
    def run_stage(cls, safe: bool = False) -> "StageCLI":
        """Parse `sys.argv` and run the stage.

        Args:
            safe: Refuse classes that are not known, and settings by which data may run code.

        """
        bound_texts(safe)
        if safe:
            be_safe()
            check_command_line(sys.argv[1:])
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
        """Add `llm:`, `store:` and keys of callbacks, and link these two to every class that takes them.

        Sizes go from data to model.
        """
        parser.add_subclass_arguments(LLM, "llm", required=False, help="The frozen LLM: configs/llm/*.yaml.")
        parser.add_argument("--safe", action=Safe)
        parser.add_argument("--store", type=str, default="stores/niah", help="Folder of the score store.")
        about = "Hash every shard of the stores, also those that have not changed since they were verified."
        parser.add_argument("--verify", action="store_true", help=about)
        add_named_callbacks(parser)
        for target in ("model", "data", "writer", "rag", "trainer.callbacks"):
            parser.link_arguments("llm", f"{target}.init_args.llm", apply_on="instantiate")
            parser.link_arguments("store", f"{target}.init_args.store")
        parser.link_arguments("data.hidden_size", "model.init_args.in_features", apply_on="instantiate")
        parser.link_arguments("data.num_heads", "model.init_args.num_heads", apply_on="instantiate")
        parser.link_arguments("data.offsets", "model.init_args.num_offsets", apply_on="instantiate")
        parser.link_arguments("data.probed_target", "model.init_args.target", apply_on="instantiate")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The stage that is asked for, so that only its parser is made; all of them where it is none."""
        stages = LightningCLI.subcommands()
        asked = sys.argv[1] if len(sys.argv) > 1 else ""
        return {asked: stages[asked]} if asked in stages else stages

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, resolve its paths, and refuse numbers out of range before anything is done.

        Raises:
            UserError: naming the key.

        """
        super().parse_arguments(parser, args)
        config = self.subcommand_config
        if config is None:
            return
        resolve_places(config)
        settings = config.as_dict()
        if "--safe" in sys.argv:
            check_switches(settings)
        for key, value in settings.items():
            check_value(value, SEED_EVERYTHING if key == "seed_everything" else Any, key)
        check_trainer(self.config["subcommand"], settings["trainer"])
        if settings.get("ckpt_path"):
            config["ckpt_path"] = str(user_path(settings["ckpt_path"]))
        leave_out_listed(config)

    def before_instantiate_classes(self) -> None:
        """Let `--verify` reach every score store that the stage opens, in every process; switch progress on or off."""
        if self.subcommand_config is None:
            return
        trainer = self.subcommand_config.trainer
        show_progress(trainer.enable_progress_bar is not False and not trainer.barebones)
        if self.subcommand_config.verify:
            os.environ[VERIFY_VARIABLE] = "1"

    def instantiate_classes(self) -> None:
        """Make model, data module, callbacks, loggers and Trainer.

        Raises:
            UserError: a class of a library refuses its settings, or needs a package that is not installed.

        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            if not (reason := refused_class(error)):
                raise
            raise UserError(reason) from error

    def instantiate_trainer(self, **arguments: Any) -> Trainer:
        """Make the Trainer, without what its switches exclude.

        Raises:
            UserError: its precision or strategy needs a package that is not installed, or settings exclude each other.

        """
        made = self.config_init[self.config["subcommand"]]
        given = {**made["trainer"], **arguments}
        given["callbacks"] = [*named_callbacks(made), *listed_callbacks(given)]
        try:
            trainer = super().instantiate_trainer(**apply_switches(given))
        except (ImportError, ValueError) as error:
            raise UserError(f"trainer: {error}") from error
        use_atomic_checkpoints(trainer)
        # In this order: a stopped run saves its state before it releases the folders.
        trainer.callbacks.extend([StopAtBatch(), CheckpointFolders()])  # type: ignore[attr-defined]
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        if job() is not None and not self.config[subcommand].ckpt_path:
            # None is meant: by itself Lightning would load what any SLURM job has left.
            self.trainer._checkpoint_connector._user_managed = True
        with stage(self.trainer):
            super()._run_subcommand(subcommand)

    def predict(self, **arguments: Any) -> None:
        """Run Lightning's predict without keeping every prediction in memory.

        Raises:
            UserError: no callback would keep what the LLM is run for.

        """
        if isinstance(self.model, Extraction) and not any(map(_keeps_predictions, self.trainer.callbacks)):  # type: ignore[attr-defined]
            raise UserError(
                "writer: without extract.ScoreWriter nothing keeps the scores; give the config `writer: {class_path: "
                "extract.ScoreWriter}`"
            )
        self.trainer.predict(**{**arguments, "return_predictions": False})

    def test(self, **arguments: Any) -> None:
        """Run Lightning's test, without its table of metrics where one of our callbacks prints its own."""
        reported = any(isinstance(callback, Artifacts | RagEvaluation) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        found = self.trainer.test(**{**arguments, "verbose": False})
        self._print_metrics("Test", found, arguments["verbose"] and not reported)

    def validate(self, **arguments: Any) -> None:
        """Run Lightning's validation."""
        found = self.trainer.validate(**{**arguments, "verbose": False})
        self._print_metrics("Validation", found, arguments["verbose"])

    def _print_metrics(self, title: str, found: Any, verbose: bool) -> None:
        """Print the logged metrics, in place of Lightning's table, which ignores the terminal's width."""
        if verbose and found and any(found) and self.trainer.is_global_zero:
            DataConsole().print(metrics_table(title, found))

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
        path = checkpoint_path(self.config["subcommand"], config.as_dict())
        if path is None:
            return
        config["ckpt_path"] = str(path)
        checkpoint = read_checkpoint(path)
        held, asked = checkpoint["probe"]["class"], config["model"]["class_path"]
        if (kind := probe_class(held)) is not pkgutil.resolve_name(asked):
            raise UserError(f"--ckpt_path {path} holds a {held}, but model.class_path is {asked}")
        saved = {name: value for name, value in checkpoint["hyper_parameters"].items() if not name.startswith("_")}
        check_settings(kind, saved, f"--ckpt_path {path}: hyper_parameters")
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
