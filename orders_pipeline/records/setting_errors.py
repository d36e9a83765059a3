"""What is wrong with what somebody has set, in our words and without its value.

For settings of the environment, of the clients file and of the users file alike; what may be set belongs in those modules.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pydantic import ValidationError

NO_SETTING = "this is no setting"
NEAR = 0.8  # of difflib: one letter of five is another
_WORDS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("bool_parsing", "bool_type"), "this must be true or false"),
        **dict.fromkeys(("int_parsing", "int_parsing_size", "int_type", "int_from_float"), "this must be a whole number"),
        **dict.fromkeys(("float_parsing", "float_type", "finite_number"), "this must be a number"),
        "string_type": "this must be a text",
        "literal_error": "this must be {expected}",
        "greater_than": "this must be more than {gt}",
        "greater_than_equal": "this must be {ge} or more",
        "less_than_equal": "this must be {le} or less",
        "string_too_short": "this must have {min_length} characters or more",
        "string_too_long": "this must have {max_length} characters or fewer",
        "too_short": "this must have {min_length} or more",
        "too_long": "this must have {max_length} or fewer",
        **dict.fromkeys(("tuple_type", "list_type"), "this must be a list"),
        **dict.fromkeys(("model_type", "dict_type", "mapping_type"), "this must be a table"),
        "missing": "this is missing",
        "extra_forbidden": NO_SETTING,
        "value_error": "{error}",
    }
)
_ONE_OF_SEVERAL = re.compile(r"constrained-\w+|literal\[.*\]|int")  # what pydantic adds to a place that takes several kinds


def in_words(error: ValidationError) -> Mapping[tuple[int | str, ...], str]:
    """Return by its place what must be there of each thing that is wrong."""
    found: dict[tuple[int | str, ...], str] = {}
    for problem in error.errors(include_input=False, include_url=False):
        place, context = problem["loc"], problem.get("ctx", {})
        whole = {
            name: int(each) if isinstance(each, float) and each.is_integer() else each for name, each in context.items()
        }
        words = _WORDS.get(problem["type"])
        says = problem["msg"] if words is None else words.format_map(whole)
        if place and _ONE_OF_SEVERAL.fullmatch(str(place[-1])):
            place = place[:-1]
        others = found.get(place)
        found[place] = says if others is None else f"{others} or {says.removeprefix('this must be ')}"
    return found


def meant(name: str, known: Sequence[str]) -> str | None:
    """Return the name that is near to a wrong one, if one is: begun by it as no other is, or spelt much the same."""
    begun = [each for each in known if each.lower().startswith(f"{name.lower()}_")]
    near = begun if len(begun) == 1 else difflib.get_close_matches(name, known, n=1, cutoff=NEAR)
    return near[0] if near else None
