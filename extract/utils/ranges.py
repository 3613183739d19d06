"""Ranges of numeric settings, stated as types in signatures, and the check of settings against them."""

import inspect
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pkgutil import resolve_name
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from extract.errors import UserError
from extract.utils.texts import is_unicode

LARGEST = 2**31 - 1
"""Largest number of anything: sums of such numbers and row numbers fit into 64 bits."""


@dataclass(frozen=True)
class Range:
    """Metadata of a numeric type: the finite numbers from `low` to `high`; a bound that is `open` is left out.

    >>> Range(0, 1, open_high=True)
    at least 0 and below 1
    >>> [Range(0, 1, open_high=True).holds(value) for value in (0.0, 1.0, math.nan)]
    [True, False, False]

    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number is in the range."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return math.isfinite(value) and above and below

    def __repr__(self) -> str:
        low = "" if math.isinf(self.low) else f"{'above' if self.open_low else 'at least'} {self.low}"
        hidden = math.isinf(self.high) or self.high >= LARGEST
        high = "" if hidden else f"{'below' if self.open_high else 'at most'} {self.high}"
        return " and ".join(filter(None, (low, high))) or "a finite number"


PositiveInt = Annotated[int, Range(1, LARGEST)]
NonNegativeInt = Annotated[int, Range(0, LARGEST)]
AnyInt = Annotated[int, Range(-LARGEST, LARGEST)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Resamples = Annotated[int, Range(0, 10**6)]
Repetitions = Annotated[int, Range(0, 1000)]
SampleCount = Annotated[int, Range(1, 10**7)]
Width = Annotated[int, Range(1, 2**20)]
Workers = Annotated[int, Range(0, 1024)]
FiniteFloat = Annotated[float, Range()]
PositiveFloat = Annotated[float, Range(0, open_low=True)]
NonNegativeFloat = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
PositiveShare = Annotated[float, Range(0, 1, open_low=True)]
ShareBelowOne = Annotated[float, Range(0, 1, open_high=True)]


def check_fields(settings: Any) -> None:
    """Refuse a dataclass with a number out of the range of its field: its `__post_init__`.

    Raises:
        UserError: naming class and field.

    """
    for field in fields(settings):
        check_value(getattr(settings, field.name), field.type, f"{type(settings).__name__}.{field.name}")


def check_arguments(function: Any, arguments: Mapping[str, Any], key: str) -> None:
    """Refuse arguments of a class or function out of the ranges of its signature, or null where it allows none.

    Args:
        function: What they are passed to; arguments that a class passes on are those of its bases.
        arguments: By name.
        key: What precedes their names in messages.

    Raises:
        UserError: naming the argument.

    """
    known = _parameters(function)
    for name, value in arguments.items():
        parameter = known.get(name, _ANY)
        if value is None and not _may_be_null(parameter):
            raise UserError(f"{key}{name}: {_shown(parameter.annotation)}, not null")
        check_value(value, parameter.annotation, f"{key}{name}")


def annotations(function: Any) -> dict[str, Any]:
    """Type hints of all arguments of a class, its bases' included, or of a function."""
    return {name: parameter.annotation for name, parameter in _parameters(function).items()}


_ANY = inspect.Parameter("any", inspect.Parameter.KEYWORD_ONLY, annotation=Any)


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    found: dict[str, inspect.Parameter] = {}
    for kind in function.__mro__ if isinstance(function, type) else (function,):
        called = vars(kind).get("__init__") if isinstance(kind, type) else kind
        if called is not None and called is not object.__init__:
            for name, parameter in inspect.signature(called).parameters.items():
                found.setdefault(name, parameter)
    return found


def _may_be_null(parameter: inspect.Parameter) -> bool:
    """Whether an argument may be null: by its type or default, or required, for the command line may set it later."""
    if parameter.default is None or parameter.default is inspect.Parameter.empty:
        return True
    anything = (None, type(None), Any, object)
    types = _alternatives(parameter.annotation)
    return any(one in anything or not (get_origin(one) or isinstance(one, type)) for one in types)


def _shown(hint: Any) -> str:
    """What is expected, for messages: the range of a number, else the type."""
    if limits := _ranges(hint):
        return str(limits[0])
    return f"a value of the type {getattr(get_origin(hint) or hint, '__name__', hint)}"


def check_value(value: Any, hint: Any, key: str) -> None:
    """Refuse a number out of the range of its type hint, or within a value of it; NaN is refused everywhere.

    So is a text that cannot be encoded.

    Args:
        value: A plain value: numbers, lists, mappings; a mapping with a `class_path` holds arguments of that class.
        hint: Its type.
        key: Its name in messages.

    Raises:
        UserError: naming the key.

    >>> check_value([0.5, float("nan")], list[Share], "data.fractions")
    Traceback (most recent call last):
    extract.errors.UserError: data.fractions: at least 0 and at most 1, not nan

    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, int) and value.bit_length() > sys.float_info.max_exp:
            raise UserError(f"{key}: a number beyond the range of floating point")
        for limits in _ranges(hint) or [Range()] * math.isnan(value):
            if not limits.holds(value):
                raise UserError(f"{key}: {limits}, not {value}")
    elif isinstance(value, str) and not is_unicode(value):
        raise UserError(f"{key}: {value!r} is not Unicode text (a lone surrogate)")
    elif isinstance(value, Mapping) and isinstance(value.get("class_path"), str):
        check_arguments(resolve_name(value["class_path"]), value.get("init_args") or {}, f"{key}.init_args.")
    elif isinstance(value, Mapping) and (held := _dataclass(hint)):
        check_arguments(held, value, f"{key}." if key else "")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            check_value(inner, _item(hint, dict), f"{key}.{name}" if key else name)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            check_value(inner, _item(hint, list), f"{key}.{number}" if isinstance(inner, Mapping) else key)


def _alternatives(hint: Any) -> list[Any]:
    """The types of a union, or the only one."""
    return [one for part in get_args(hint) for one in _alternatives(part)] if _is_union(hint) else [hint]


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _ranges(hint: Any) -> list[Range]:
    """The range of a number of this type."""
    annotated = [one for one in _alternatives(hint) if get_origin(one) is Annotated]
    return [limits for one in annotated for limits in one.__metadata__ if isinstance(limits, Range)]


def _dataclass(hint: Any) -> Any:
    return next((one for one in _alternatives(hint) if hasattr(one, "__dataclass_fields__")), None)


def _item(hint: Any, container: type) -> Any:
    """Type of the items of a list or tuple, or of the values of a mapping."""
    for one in _alternatives(hint):
        origin = get_origin(one)
        if isinstance(origin, type) and get_args(one) and issubclass(origin, Mapping) == (container is dict):
            return get_args(one)[-1 if container is dict else 0]
    return Any
