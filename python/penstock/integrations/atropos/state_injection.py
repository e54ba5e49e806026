"""``state_injection_template``: the environment's state, as text in front of every prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["inject_state"]

#: Values of other columns at the new tokens: these are prompt, so there is no loss, and no logprob.
_AT_A_PROMPT: Final = {
    "masks": -100,
    "advantages": 0.0,
    "ref_logprobs": 1.0,
    "inference_logprobs": 1.0,
}
_DISTILLED: Final = {"distill_token_ids": 0, "distill_logprobs": 0.0}


def inject_state(group: dict[str, Any], item: Any, template: str, tokenizer: Any) -> None:
    """Inserts ``template`` with the item's state before every sequence of the group, in place.

    The state is ``item.state``, ``item["state"]``, or the item as text. The other columns get as
    many new values as there are new tokens, so that each value stays at its token. A
    beginning-of-sequence token stays first; a sequence that has the text already stays unchanged.
    """
    text = template.format(state=_state_of(item))
    new = list(tokenizer.encode(f"{text}\n\n", add_special_tokens=False))
    begins = getattr(tokenizer, "bos_token_id", None)
    for at, tokens in enumerate(group["tokens"]):
        if text in tokenizer.decode(tokens):
            continue
        place = 1 if begins is not None and len(tokens) > 0 and tokens[0] == begins else 0
        group["tokens"][at] = _inserted(tokens, place, new)
        for name, value in _AT_A_PROMPT.items():
            _extend(group.get(name), at, place, [value] * len(new))
        for name, value in _DISTILLED.items():
            column = group.get(name)
            if column is not None and at < len(column) and len(column[at]) > 0:
                width = len(column[at][0])
                _extend(column, at, place, [[value] * width for _ in new])


def _state_of(item: Any) -> Any:
    if isinstance(item, Mapping) and "state" in item:
        return item["state"]
    return getattr(item, "state", str(item))


def _inserted(values: Any, place: int, new: list[Any]) -> list[Any]:
    before, after = list(values[:place]), list(values[place:])
    return [*before, *new, *after]


def _extend(column: Any, at: int, place: int, new: list[Any]) -> None:
    """Columns that the environment leaves out are None, or an empty list."""
    if column is not None and at < len(column):
        column[at] = _inserted(column[at], place, new)
