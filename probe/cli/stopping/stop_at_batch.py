"""The callback that stops a Trainer after its batch, on all processes, and saves where `fit` goes on."""

import logging
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.multiprocessing.spawn import ProcessRaisedException

from extract.errors import UserError
from extract.stopping import STOP, Stopped
from probe.cli.config.checkpoint_paths import JOB, left_by_this_job
from probe.cli.stopping.requeue import REQUEUE, job
from probe.cli.stopping.run_processes import FURTHER, end_with_parent
from probe.cli.stopping.signals import listening, take_signals
from probe.cli.stopping.stoppable import RUN, STOPPED_CHECKPOINT

_REFUSED = re.compile(rf"^{re.escape(UserError.__module__)}\.{UserError.__name__}: (.*)$", re.MULTILINE)
"""The end of a traceback's text."""


class StopAtBatch(Callback):
    """Stop after the current batch when a signal asks for it; the last callback, so that the batch is written.

    `predict`, `validate` and `test` stop before the next batch. In `fit` all processes agree after a training batch;
    the weights of that step, the optimizer and the random states go into `stopped.ckpt`. A signal during validation,
    or before it, is obeyed at the end of the epoch: Lightning cannot resume inside of a validation.

    SLURM's signal to requeue the job is obeyed in `fit` at the same points, where the state is whole and the same on
    all processes: it goes into `hpc_ckpt_N.ckpt`, with the job's id, by which the job finds it again.
    """

    def __init__(self) -> None:
        self._ending = self._goes_on = False
        self._listening = ExitStack()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: a spawned process has its own."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        del state
        self.__init__()  # type: ignore[misc]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """In a process that multiprocessing has spawned, handle signals as in the first; say where checkpoints go."""
        del pl_module, stage
        if parent_process() is not None:
            end_with_parent()
            self._listening.enter_context(listening(_end, _end, os.getppid()))
        RUN.checkpoints = lambda: folders(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on signals wait for the end of a batch."""
        del trainer, pl_module
        STOP.check()
        STOP.finishing = REQUEUE.training = True
        take_signals()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop or requeue, but not where a validation or the end of the epoch comes next."""
        del pl_module, outputs, batch, batch_idx
        loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
        assert fetcher is not None
        if not loop.batch_progress.is_last_batch and not loop._should_check_val_fx(fetcher):
            self._obey(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at the end of the epoch, which Lightning completes first; requeue after a batch of the next."""
        del pl_module
        if parent_process() is None:  # a spawned one stops after a batch of the next epoch
            self._obey(trainer, requeue=trainer.num_training_batches == 1)  # then there is no other place

    def _obey(self, trainer: Trainer, requeue: bool = True) -> None:
        wanted = 2 if REQUEUE.wanted and requeue else 1 if STOP.signum is not None else 0
        if trainer.world_size > 1:  # a signal may have reached some processes only
            number = torch.tensor(wanted, device=trainer.strategy.root_device)
            wanted = int(trainer.strategy.reduce(number, reduce_op="max"))
        if wanted == 2:
            self._requeue(trainer)
        elif wanted == 1 and parent_process() is not None:
            # There Lightning calls nothing for an exception, and a process that ends with 0 lets the first wait.
            self._save(trainer)
            raise Stopped(STOP.signum or signal.SIGTERM)
        elif wanted == 1:
            # Lightning ends its loop at the next point from which it can resume: after this batch, or this epoch.
            trainer._signal_connector.received_sigterm = True

    def _requeue(self, trainer: Trainer) -> None:
        """Save where the job goes on, and requeue it; SLURM then ends its processes."""
        REQUEUE.wanted = False
        for logger in trainer.loggers:
            logger.finalize("finished")
        path = trainer.strategy.broadcast(trainer._checkpoint_connector.hpc_save_path(trainer.default_root_dir))
        self._write(trainer, Path(path))
        REQUEUE.done = trainer.strategy.broadcast(REQUEUE.ask())

    def _write(self, trainer: Trainer, path: Path) -> None:
        """Write where the training goes on, in place of what it went on from."""
        self._ending = True
        trainer.save_checkpoint(path, weights_only=False)
        self._ending = False
        if trainer.ckpt_path and Path(str(trainer.ckpt_path)).resolve() != path.resolve():
            self._remove_resumed(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Record the job that goes on from there when it starts again."""
        del trainer, pl_module
        if self._ending and job() is not None:
            checkpoint[JOB] = job()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Know whether this job has left it."""
        del trainer, pl_module
        self._goes_on = left_by_this_job(checkpoint)

    def _remove_resumed(self, trainer: Trainer) -> None:
        """Remove the checkpoint that this run went on from, if a stop or this job has left it."""
        resumed = Path(str(trainer.ckpt_path)) if trainer.ckpt_path else None
        if resumed is not None and trainer.is_global_zero and (resumed.name == STOPPED_CHECKPOINT or self._goes_on):
            resumed.unlink(missing_ok=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the state of the stop."""
        del pl_module
        if isinstance(exception, SIGTERMException) and trainer.state.fn == TrainerFn.FITTING and not REQUEUE.done:
            self._save(trainer)
        STOP.finishing = False

    def _save(self, trainer: Trainer) -> None:
        for folder in folders(trainer)[:1]:
            self._write(trainer, folder / STOPPED_CHECKPOINT)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The training is complete: nothing goes on from its stop any more, and `last.ckpt` is its end.

        Lightning leaves there the last epoch that was better than those before, or the end if a resumed run had none.
        """
        del pl_module
        STOP.finishing = False
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback._last_global_step_saved != trainer.global_step:
                callback._last_checkpoint_saved = ""  # not what a link would name
                callback._save_last_checkpoint(trainer, callback._monitor_candidates(trainer))
        self._remove_resumed(trainer)

    def _begin(self, trainer: Trainer) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            take_signals()

    def _next_batch(self, trainer: Trainer) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            STOP.check()
            STOP.finishing = True

    def _last_batch(self, trainer: Trainer) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            STOP.finishing = False
            STOP.check()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals."""
        del pl_module
        self._begin(trainer)

    on_test_start = on_validation_start = on_predict_start

    def on_predict_batch_start(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Stop before this batch, or finish it before a signal is obeyed."""
        self._next_batch(trainer)

    on_test_batch_start = on_validation_batch_start = on_predict_batch_start

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after the last batch."""
        del pl_module
        self._last_batch(trainer)

    on_test_epoch_end = on_validation_epoch_end = on_predict_epoch_end


@contextmanager
def stage(trainer: Trainer) -> Iterator[None]:
    """A stage of the Trainer, with its further processes.

    Raises:
        UserError: one of those that multiprocessing spawned raised it; of an exception there only its text arrives.

    """
    launcher: Any = trainer.strategy.launcher
    FURTHER.find = lambda: getattr(launcher, "procs", ())
    RUN.checkpoints = lambda: folders(trainer)
    # Where all processes are spawned, they stop at their batches, and this one waits for them.
    STOP.finishing = isinstance(launcher, _MultiProcessingLauncher)
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # it reports each process that it ends
    try:
        with _requeueing(trainer):
            yield
    except ProcessRaisedException as error:
        if found := _REFUSED.findall(str(error)):
            raise UserError(found[-1]) from error
        raise
    finally:
        STOP.finishing = False


@contextmanager
def _requeueing(trainer: Trainer) -> Iterator[None]:
    """Obey the signal at which SLURM's job is to be requeued; Lightning leaves one that has a handler alone."""
    environment, number = trainer._accelerator_connector.cluster_environment, None
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
        number = environment.requeue_signal
    REQUEUE.begin(number)
    former = signal.signal(number, REQUEUE.handle) if number is not None else None
    try:
        yield
    finally:
        if number is not None:
            signal.signal(number, former)
        REQUEUE.number = None


def folders(trainer: Trainer) -> list[Path]:
    """Where the Trainer's checkpoints go."""
    callbacks = (one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint))
    return [Path(str(one.dirpath)) for one in callbacks if one.dirpath]


def _end(signum: int) -> NoReturn:
    """End a spawned process immediately; the first says why."""
    os._exit(128 + signum)
