"""Files of questions, attributed one after the other: what is finished is kept, and processes may share a file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extract.errors import UserError
from extract.stopping import STOP
from extract.tasks.sources import LoadedRecords
from extract.utils import Progress, WorkShare, digest, remove_temporary_files, write_bytes, write_together
from probe.attribution.citations.attributed_answer import AttributedAnswer
from probe.attribution.citations.attributor import Attributor
from probe.attribution.citations.question_file import Question, read_questions
from probe.results import Trials

CITATIONS = "citations.jsonl"
"""File with the citations of all answers, one a line."""


@dataclass
class Outcome:
    """What was done with a file's questions.

    Attributes:
        answered: Number attributed now.
        kept: Number that was finished before.
        rejected: Those left out, by reason.
        collected: Number of answers in the file of citations, those of other processes included.

    """

    answered: int
    kept: int
    rejected: LoadedRecords
    collected: int


class AnswerFile:
    """Attributes the questions of a file into a folder.

    The folder gets `citations.jsonl`, and for each answer a page and all its numbers, named by the record's number:
    `000001.html`, `000001.json`. A finished question is not run again while its text and the settings are the same.

    Args:
        file: Questions: see `read_questions`.
        folder: Where results go.
        attributor: Answers and attributes.
        share: Which questions are this process's.

    """

    def __init__(self, file: Path, folder: Path, attributor: Attributor, share: WorkShare) -> None:
        self._file, self._folder, self._attributor, self._share = file, folder, attributor, share
        self._settings = attributor.describe()

    def run(self) -> Outcome:
        """Attribute what is not finished.

        Raises:
            UserError: no question is usable, another run writes to the folder, or it holds results of other settings.

        """
        rejected = LoadedRecords()
        wanted = {one.number: one.digest for one in read_questions(self._file, rejected)}
        if not wanted:
            raise UserError(f"{self._file}: no usable question; {'; '.join(rejected.summary())}")
        trials = self._trials(f"lines-{self._share.number}-of-{self._share.of}")
        trials.open(self._settings)
        try:
            remove_temporary_files(self._folder)
            finished = {trial["line"] for trial in trials.read() if wanted.get(trial["line"]) == trial["digest"]}
            counts = self._attribute(trials, finished, rejected, len(wanted))
            return Outcome(*counts, rejected, self._collect(wanted))
        finally:
            trials.close()

    def _trials(self, name: str) -> Trials:
        return Trials(self._folder / name, "--output")

    def _attribute(self, trials: Trials, finished: set[int], rejected: LoadedRecords, total: int) -> tuple[int, int]:
        """Attribute this process's questions; how many, and how many were finished before."""
        answered, kept = 0, 0
        with Progress("attribute", total / self._share.of, "questions") as progress:
            for question in read_questions(self._file, LoadedRecords()):
                if not self._share.holds(question.number - 1):
                    continue
                if question.number in finished:
                    kept += 1
                    continue
                with STOP.batch():  # an answer and its files are finished before a signal is obeyed
                    answered += self._attribute_one(question, trials, rejected)
                progress.show(answered + kept)
        return answered, kept

    def _attribute_one(self, question: Question, trials: Trials, rejected: LoadedRecords) -> bool:
        """Attribute a question, unless it does not fit the model; the trial comes last, once its files are there."""
        try:
            prompt = self._attributor.prompt(question.question, question.documents, question.answer)
        except UserError as error:
            rejected.reject(str(error), question.name)
            return False
        answer = self._attributor.answer(prompt, question.answer)
        file = self._folder / f"{question.number:06d}"
        write_together(
            {file.with_suffix(".html"): answer.to_html().encode(), file.with_suffix(".json"): answer.to_json().encode()}
        )
        trials.write(question.number, [_trial(question, answer, digest(self._settings))])
        return True

    def _collect(self, wanted: Mapping[int, str]) -> int:
        """Write the citations that all processes have finished; how many.

        Two processes may end together: each looks again after it has written, so that the last file is the whole one.
        """
        found, written = self._finished(wanted), -1
        while written != len(found):
            lines = [json.dumps(trial["result"], ensure_ascii=False) for _, trial in sorted(found.items())]
            write_bytes(self._folder / CITATIONS, "".join(f"{line}\n" for line in lines).encode())
            written, found = len(found), self._finished(wanted)
        return written

    def _finished(self, wanted: Mapping[int, str]) -> dict[int, Any]:
        """Trials of all processes with these settings, by the number of their question."""
        settings, folders = digest(self._settings), sorted(self._folder.glob("lines-*-of-*"))
        trials = [trial for folder in folders for trial in self._trials(folder.name).read()]
        return {
            trial["line"]: trial
            for trial in trials
            if trial["settings"] == settings and wanted.get(trial["line"]) == trial["digest"]
        }


def _trial(question: Question, answer: AttributedAnswer, settings: str) -> dict[str, Any]:
    """What is kept of an answer: its line of the file of citations, and by what it is recognised."""
    whole = answer.to_dict()
    shown = {name: whole[name] for name in ("question", "answer", "citations", "ungrounded", "method")}
    result = {"id": question.name, "number": question.number, **shown}
    return {"line": question.number, "digest": question.digest, "settings": settings, "result": result}
