"""Descriptions of the routes, for programs (/openapi.json) and for people (/docs)."""

from __future__ import annotations

import html
from functools import cache
from typing import Any, Final

from .... import __version__

__all__ = ["openapi", "page"]

_Schema = dict[str, Any]


def _list_of(item: _Schema) -> _Schema:
    return {"type": "array", "items": item}


def _optional(schema: _Schema) -> _Schema:
    return {"anyOf": [schema, {"type": "null"}], "default": None}


def _object(required: dict[str, _Schema], optional: dict[str, _Schema] | None = None) -> _Schema:
    properties = {**required, **{name: _optional(one) for name, one in (optional or {}).items()}}
    return {"type": "object", "properties": properties, "required": list(required)}


def _reference(name: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer"}
_REAL: Final = {"type": "number"}
_ANY_OBJECT: Final = {"type": "object"}
_WHOLE_FOR_EACH_TOKEN: Final = _list_of(_list_of(_WHOLE))
_REAL_FOR_EACH_TOKEN: Final = _list_of(_list_of(_REAL))

_SCHEMAS: Final = {
    "Registration": _object(
        {
            "wandb_group": _TEXT,
            "wandb_project": _TEXT,
            "batch_size": _WHOLE,
            "max_token_len": _WHOLE,
            "checkpoint_dir": _TEXT,
            "save_checkpoint_interval": _WHOLE,
            "starting_step": _WHOLE,
            "num_steps": _WHOLE,
        }
    ),
    "RegisterEnv": _object(
        {"max_token_length": _WHOLE, "desired_name": _TEXT, "weight": _REAL, "group_size": _WHOLE},
        {"min_batch_allocation": _REAL},
    ),
    "EnvIdentifier": _object({"env_id": _WHOLE}),
    "ScoredData": _object(
        {
            "tokens": _WHOLE_FOR_EACH_TOKEN,
            "masks": _WHOLE_FOR_EACH_TOKEN,
            "scores": _list_of(_REAL),
        },
        {
            "advantages": _REAL_FOR_EACH_TOKEN,
            "ref_logprobs": _REAL_FOR_EACH_TOKEN,
            "messages": _list_of(_list_of(_ANY_OBJECT)),
            "generation_params": _ANY_OBJECT,
            "inference_logprobs": _REAL_FOR_EACH_TOKEN,
            "overrides": _list_of(_ANY_OBJECT),
            "group_overrides": _ANY_OBJECT,
            "images": {},
            "env_id": _WHOLE,
            "distill_token_ids": _list_of(_WHOLE_FOR_EACH_TOKEN),
            "distill_logprobs": _list_of(_REAL_FOR_EACH_TOKEN),
        },
    ),
}
#: Method, path, purpose, body.
_ROUTES: Final[tuple[tuple[str, str, str, _Schema | None], ...]] = (
    ("get", "/", "Says what server this is", None),
    ("post", "/register", "A trainer says what batches are like", _reference("Registration")),
    ("post", "/register-env", "An environment takes a place", _reference("RegisterEnv")),
    ("post", "/disconnect-env", "An environment leaves", _reference("EnvIdentifier")),
    ("post", "/scored_data", "Puts a group into the queue", _reference("ScoredData")),
    (
        *("post", "/scored_data_list", "Puts several, all or none"),
        _list_of(_reference("ScoredData")),
    ),
    ("get", "/batch", "Takes the oldest groups that make a batch, or null", None),
    ("get", "/status", "The step, and how many groups wait", None),
    ("get", "/status-env", "The same as one environment counts", _reference("EnvIdentifier")),
    ("get", "/info", "batch_size and max_token_len, or -1", None),
    ("get", "/wandb_info", "The names that the trainer registered with", None),
    ("get", "/latest_example", "The group that came last", None),
    ("get", "/reset_data", "Drops what waits, and all registrations", None),
)


@cache
def openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, Any] = {}
    for method, path, summary, body in _ROUTES:
        operation: dict[str, Any] = {
            "summary": summary,
            "responses": {
                "200": {"description": "Successful Response", "content": {"application/json": {}}}
            },
        }
        if body is not None:
            content = {"application/json": {"schema": body}}
            operation["requestBody"] = {"required": True, "content": content}
        paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "AtroposLib API", "version": __version__},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


@cache
def page() -> str:
    """The routes as a page that loads nothing from other servers."""
    rows = "".join(
        f"<tr><td>{method.upper()}</td><td><code>{path}</code></td>"
        f"<td>{html.escape(summary)}</td><td>{html.escape(_body_title(body))}</td></tr>"
        for method, path, summary, body in _ROUTES
    )
    return (
        "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>AtroposLib API</title>"
        "<h1>AtroposLib API, served by Penstock</h1>"
        '<p>The bodies are described in <a href="openapi.json">openapi.json</a>.</p>'
        f"<table><tr><th>Method<th>Route<th>What it does<th>Body</tr>{rows}</table></html>"
    )


def _body_title(body: _Schema | None) -> str:
    if body is None:
        return ""
    listed = body.get("items")
    name = str((listed or body)["$ref"]).rpartition("/")[2]
    return f"a list of {name}" if listed else name
