"""Puts the ``shm`` transport into an installed atroposlib: ``BaseEnvConfig.transport = "shm"``.

``BaseEnv`` stays the same class, and so do environments defined before: fields are added to its
config, and the methods that send a group and that query the server are wrapped. With
``transport="http"`` they do what they did.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from ...errors import Incompatible
from . import serverless
from .imports import when_imported
from .names import SCHEME
from .state_injection import inject_state
from .transport import (
    QUEUE_HEADER,
    Transport,
    TransportType,
    is_serverless,
    queue_of_header,
    transport_of,
)

__all__ = ["install"]

_log = logging.getLogger("penstock.atropos")

_BASE: Final = "atroposlib.envs.base"
_TRAINER: Final = "example_trainer.api"
#: The wrapped methods, with the parameters that they are called with.
_METHODS: Final = {
    "register_env": ["self"],
    "_register_env": ["self"],
    "get_server_info": ["self"],
    "get_status": ["self"],
    "setup_wandb": ["self"],
    "handle_send_to_api": None,
    "_send_scored_data_to_api": ["self", "scored_data"],
}
_MARK: Final = "_penstock_transport"


def install() -> None:
    """Adds ``transport`` to atroposlib's ``BaseEnvConfig``, and makes its trainer's functions
    accept ``shm://QUEUE`` as a server's address.

    Call it before or after atroposlib is imported; a second call has no effect. Processes that
    multiprocessing spawns must call it themselves.

    Raises ImportError without atroposlib, and Incompatible if its ``BaseEnv`` is not the known one
    (0.4.0 is): then nothing was changed.
    """
    if importlib.util.find_spec("atroposlib") is None:
        raise ImportError(
            "there is no atroposlib in this Python to install the shm transport into: "
            "pip install atroposlib"
        )
    when_imported(_BASE, _install_into_environments)
    when_imported(_TRAINER, _install_into_trainer)


def _install_into_environments(base: ModuleType) -> None:
    if hasattr(base.BaseEnv, _MARK):
        return
    _check(base)
    _add_fields(base.BaseEnvConfig)
    base.TransportType = TransportType  # type: ignore[attr-defined]
    for name, make in _REPLACEMENTS.items():
        setattr(base.BaseEnv, name, make(getattr(base.BaseEnv, name)))
    setattr(base.BaseEnv, _MARK, None)


def _install_into_trainer(api: ModuleType) -> None:
    from .trainer import install_into

    install_into(api)


def _check(base: ModuleType) -> None:
    missing = [name for name in ("BaseEnv", "BaseEnvConfig") if not hasattr(base, name)]
    if not missing:
        missing = [name for name in _METHODS if not callable(getattr(base.BaseEnv, name, None))]
    if missing or not hasattr(base.BaseEnvConfig, "model_fields"):
        raise Incompatible(
            f"this atroposlib is another one than the shm transport knows (0.4.0): it lacks "
            f"{', '.join(missing) or 'pydantic 2'}; nothing was changed"
        )
    for name, parameters in _METHODS.items():
        found = list(inspect.signature(getattr(base.BaseEnv, name)).parameters)
        if parameters is not None and found != parameters:
            raise Incompatible(
                f"this atroposlib is another one than the shm transport knows (0.4.0): "
                f"BaseEnv.{name} takes {found}; nothing was changed"
            )


def _add_fields(config: Any) -> None:
    """Adds the fields to the class and to all classes derived from it by now, which have copies of
    them."""
    from pydantic.fields import FieldInfo

    for name, (annotation, default, description) in _FIELDS.items():
        if name not in config.model_fields:
            config.model_fields[name] = FieldInfo(
                annotation=annotation, default=default, description=description
            )
            config.__annotations__[name] = annotation
    config.model_rebuild(force=True)
    for derived in config.__subclasses__():
        _add_fields(derived)


_FIELDS: Final[dict[str, tuple[Any, Any, str]]] = {
    "transport": (
        TransportType,
        TransportType.HTTP,
        "How groups travel: 'http', or 'shm' for the queue of a trainer on this machine.",
    ),
    "shm_name": (
        str | None,
        None,
        "The queue, if transport is 'shm'. None: the one that the rollout server names.",
    ),
    "state_injection_template": (
        str | None,
        None,
        "Text before every prompt, with {state} of its item, as in 'Terminal output: {state}'.",
    ),
}


# --- replacements of BaseEnv's methods ----------------------------------------------------------

Method = Callable[..., Any]


def _register_env(original: Method) -> Method:
    @functools.wraps(original)
    async def register_env(self: Any) -> None:
        await original(self)
        if transport_of(self.config) is TransportType.SHM and getattr(self, _MARK) is None:
            setattr(self, _MARK, await _attach(self))

    return register_env


def _ask_registration(original: Method) -> Method:
    @functools.wraps(original)
    async def _register_env(self: Any) -> Any:
        if not is_serverless(self.config):
            return await original(self)
        if getattr(self, _MARK) is None:
            setattr(self, _MARK, await _attach(self))
        return serverless.registration(getattr(self, _MARK).writer)

    return _register_env


def _get_server_info(original: Method) -> Method:
    @functools.wraps(original)
    async def get_server_info(self: Any) -> None:
        if not is_serverless(self.config):
            await original(self)
            return
        said = serverless.info(getattr(self, _MARK).writer)
        if said["batch_size"] != -1:
            self.config.batch_size = said["batch_size"]
        self.max_token_len = said["max_token_len"]
        if self.config.group_size > self.config.batch_size:
            raise ValueError(
                f"group_size is {self.config.group_size}, and the trainer's batch has "
                f"{self.config.batch_size} sequences"
            )

    return get_server_info


def _get_status(original: Method) -> Method:
    @functools.wraps(original)
    async def get_status(self: Any) -> None:
        if not is_serverless(self.config):
            await original(self)
            return
        transport = getattr(self, _MARK)
        self.status_dict = serverless.status(
            transport.writer, self.config.group_size, transport.formed
        )
        await self.server.update_weight(self.status_dict["env_weight"])

    return get_status


def _setup_wandb(original: Method) -> Method:
    @functools.wraps(original)
    async def setup_wandb(self: Any) -> None:
        if not is_serverless(self.config):
            await original(self)
        elif self.config.use_wandb:  # only a server could tell the name of the trainer's run
            import wandb

            wandb.init(name=self.config.wandb_name, config=self.config.model_dump())

    return setup_wandb


def _send(original: Method) -> Method:
    @functools.wraps(original)
    async def _send_scored_data_to_api(self: Any, scored_data: Any) -> None:
        if transport_of(self.config) is not TransportType.SHM:
            await original(self, scored_data)
            return
        transport = getattr(self, _MARK)
        if transport is None:  # it was never registered
            transport = await _attach(self)
            setattr(self, _MARK, transport)
        groups = scored_data if isinstance(scored_data, list) else [scored_data]
        for group in groups:
            group["env_id"] = getattr(
                self, "env_id", None
            )  # as the original does, for the code after it
        await transport.put(groups)

    return _send_scored_data_to_api


def _handle_send(original: Method) -> Method:
    @functools.wraps(original)
    async def handle_send_to_api(
        self: Any, scored_data: Any, item: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        template = getattr(self.config, "state_injection_template", None)
        if template:
            for group in scored_data if isinstance(scored_data, list) else [scored_data]:
                if group is not None:
                    inject_state(group, item, template, self.tokenizer)
        return await original(self, scored_data, item, *args, **kwargs)

    return handle_send_to_api


_REPLACEMENTS: Final[dict[str, Callable[[Method], Method]]] = {
    "register_env": _register_env,
    "_register_env": _ask_registration,
    "get_server_info": _get_server_info,
    "get_status": _get_status,
    "setup_wandb": _setup_wandb,
    "_send_scored_data_to_api": _send,
    "handle_send_to_api": _handle_send,
}


async def _attach(env: Any) -> Transport:
    """Attaches to the configured queue, or to the one that the server names."""
    config = env.config
    name = getattr(config, "shm_name", None)
    if is_serverless(config):
        name = config.rollout_server_url[len(SCHEME) :]
    queue = name or await _queue_of_server(config.rollout_server_url)
    transport = await Transport.attach(
        queue,
        environment=getattr(env, "wandb_prepend", None) or config.wandb_name or env.name or "env",
        group_size=config.group_size,
        env_id=getattr(env, "env_id", None),
        # The server's own writer of this environment has the share, if the server uses this queue.
        min_share=(config.min_batch_allocation or 0.0) if name else 0.0,
        timeout=None if is_serverless(config) else 0,  # as a wait for a server
    )
    _log.info("groups go to the queue '%s' of this machine", transport.writer.name)
    return transport


async def _queue_of_server(url: str) -> Any:
    import aiohttp

    async with aiohttp.ClientSession() as session, session.get(f"{url}/info") as answer:
        answer.raise_for_status()
        return queue_of_header(answer.headers.get(QUEUE_HEADER), url)
