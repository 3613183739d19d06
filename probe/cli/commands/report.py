"""`lightning report`: one page of all results."""

from extract.utils import PositiveInt


def report(runs: list[str], output: str = "report.html", samples: PositiveInt = 8, questions: PositiveInt = 12) -> None:
    """Write one HTML page of all results beside the paper's, with an explorer of heads over time.

    The page is one file and needs no network.

    Args:
        runs: Folders of runs, score stores and checkpoints, or folders above them: `runs stores ckpts`.
        output: File to write.
        samples: Most samples of a store in the explorer.
        questions: Most questions of a RAG run whose traces are included.

    """
    from probe.report import write_report  # loads Lightning, which `--help` does not need

    file = write_report(runs, output, samples, questions)
    print(f"written to {file} ({file.stat().st_size / 1e6:.1f} MB); open it in a browser")
