"""`lightning diagnose`: a page with a card for each failed answer of a diagnosis."""

from extract.utils import PositiveInt, say, user_path, write_bytes
from probe.diagnosis.experiment import cards_page, read_run


def diagnose(file: str, output: str = "failed_answers.html", count: PositiveInt = 50) -> None:
    """Write one HTML page of a diagnosis's failed answers, a card each, grouped by cause.

    A card has the token at which the answer goes wrong, both candidates, and the texts that wrote most for either.

    Args:
        file: The `results.json` that a run of configs/diagnosis.yaml wrote; its trials must still be there.
        output: File to write.
        count: Most cards of a cause.

    """
    run, target = read_run(user_path(file)), user_path(output)
    write_bytes(target, cards_page(run, count).encode())
    failed = sum(trial["failed"] for trial in run.trials)
    say(f"{failed} failed answers of {len(run.trials)}: {target}")
