"""`lightning report`: one page of all results."""

from extract.store import always_verified
from extract.utils import PositiveInt, Share, say


def report(
    runs: list[str],
    output: str = "report.html",
    samples: PositiveInt = 8,
    questions: PositiveInt = 12,
    static_top: PositiveInt = 20,
    predicted_top: PositiveInt = 5,
    threshold: Share = 0.5,
    verify: bool = False,
) -> None:
    """Write one HTML page of all results beside the paper's, with an explorer of heads over time.

    The page is one file and needs no network.

    Args:
        runs: Folders of runs, score stores and checkpoints, or folders above them: `runs stores ckpts`.
        output: File to write.
        samples: Most samples of a store in the explorer.
        questions: Most questions of a RAG run whose traces are included.
        static_top: Size of the static set in the explorer.
        predicted_top: Heads that a regressor predicts at a step in the explorer.
        threshold: Reasoning score from which a head is dynamic in the explorer.
        verify: Hash every shard, also those that have not changed since they were verified.

    """
    from probe.report import write_report  # loads Lightning, which `--help` does not need

    with always_verified(verify):
        file = write_report(runs, output, samples, questions, static_top, predicted_top, threshold)
    say(f"written to {file} ({file.stat().st_size / 1e6:.1f} MB); open it in a browser")
