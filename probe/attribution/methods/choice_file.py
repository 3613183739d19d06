"""Reading of a choice among methods and ridges around them: results of `probe.AttributionChoice`."""

from collections.abc import Mapping
from typing import Any

from extract.errors import UserError
from extract.llm import LLMIdentity
from extract.store import check_identity
from extract.utils import check_form, read_hashed, user_path

NUMBER = (int, float)
CANDIDATE = {"ablations": int, "description": dict, "lds": {"value": NUMBER}}


def chosen_ridge(
    file: str, method: Mapping[str, Any], ablations: int, llm: LLMIdentity
) -> tuple[float, float | None, frozenset[str]]:
    """Strength and scale of highest LDS of the ridge around a method, and the ids of the samples they are chosen on.

    Args:
        file: results.json of `lightning test -c configs/attribution/choice.yaml`.
        method: Settings of the method that gives the prior scores (`AttributionMethod.describe`).
        ablations: Number of runs.
        llm: The model that it is used on.

    Raises:
        UserError: it is no such file, it is of another model, or it lacks this method with so many runs.

    """
    path, make = user_path(file), "lightning test -c configs/attribution/choice.yaml"
    if not path.is_file():
        raise UserError(f"no choice of a strength at {file}; make one with: {make}")
    found, _ = read_hashed(path, f"make it again with: {make}")
    if found.get("experiment") != "attribution_choice":
        raise UserError(f"{file} holds no choice of a strength; make one with: {make}")
    check_form(found, {"llm": dict, "samples": [str], "candidates": [CANDIDATE]}, file)
    check_identity(found["llm"], f"{file}, llm")
    if not (of := LLMIdentity(**found["llm"])).same_model(llm):
        raise UserError(f"{file} was chosen for {of} and is not valid for {llm}: choose for that model")
    rows = [row for row in found["candidates"] if (row["description"], row["ablations"]) == (method, ablations)]
    if not rows:
        raise UserError(f"{file} has no candidate of {method['class']} of these settings with {ablations} runs")
    best = max(rows, key=lambda row: row["lds"]["value"])
    check_form(best, {"strength": NUMBER, "scale": (*NUMBER, type(None))}, file)
    scale = None if best["scale"] is None else float(best["scale"])
    return float(best["strength"]), scale, frozenset(found["samples"])
