"""Form of plain values that were read from a file: the keys and types that a record must have."""

from collections.abc import Callable
from typing import Any

from extract.errors import UserError


def check_form(record: Any, form: Any, where: str) -> None:
    """Refuse plain values, read from a file, that are not of a form.

    Args:
        record: The values.
        form: A type; a tuple of types, any of which will do; a mapping of the keys that a record needs to the forms of
            their values; a list of one form, that of all items; or a function that says what is wrong with a value, or
            an empty text.
        where: Their place, for the message.

    Raises:
        UserError: naming the place of the first value that is not of its form.

    >>> check_form({"a": [1, "2"]}, {"a": [int]}, "x.json")
    Traceback (most recent call last):
    extract.errors.UserError: x.json, a, 1: int is expected, not '2'

    """
    if isinstance(form, dict):
        _expect(isinstance(record, dict), "an object", record, where)
        for key, inner in form.items():
            if key not in record:
                raise UserError(f"{where}: '{key}' is missing")
            check_form(record[key], inner, f"{where}, {key}")
    elif isinstance(form, list):
        _expect(isinstance(record, list | tuple), "a list", record, where)
        for number, one in enumerate(record):
            check_form(one, form[0], f"{where}, {number}")
    elif isinstance(form, type | tuple):
        kinds = form if isinstance(form, tuple) else (form,)
        fits = isinstance(record, kinds) and (bool in kinds or not isinstance(record, bool))
        _expect(fits, " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds), record, where)
    elif wrong := _complaint(form, record):
        raise UserError(f"{where}: {wrong}")


def _complaint(form: Callable[[Any], str], record: Any) -> str:
    return form(record)


def _expect(fits: bool, wanted: str, record: Any, where: str) -> None:
    if not fits:
        shown = repr(record)
        raise UserError(f"{where}: {wanted} is expected, not {shown if len(shown) <= 60 else shown[:60] + '…'}")


def count(low: int = 0) -> Callable[[Any], str]:
    """Form of a whole number of at least `low`, for `check_form`.

    >>> count(1)(0), count(1)(3)
    ('a whole number of at least 1 is expected, not 0', '')

    """

    def complaint(value: Any) -> str:
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value < 2**63
        return "" if fits else f"a whole number of at least {low} is expected, not {str(value)[:40]}"

    return complaint
