"""What a configuration may name by `type`, and how it is built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.registry import Registry

MODELS = Registry("model")
SCHEDULERS = Registry("scheduler")


def check_module(config: Mapping[str, Any], registry: Registry, **options: Any) -> None:
    """Raises ValueError if nothing of the configuration's `type` is registered, or if it has no such setting."""
    known = registry.module_dict
    if config.get("type") not in known:
        raise ValueError(f"there is no {registry.name} of type {config.get('type')!r}; known: {', '.join(sorted(known))}")
    settings = {key: value for key, value in config.items() if key != "type"} | options
    try:
        inspect.signature(known[config["type"]]).bind(**settings)
    except TypeError as error:
        raise ValueError(f"{registry.name} of type {config['type']!r}: {error}") from error


def build_module(config: Mapping[str, Any], registry: Registry, **options: Any) -> Any:
    """The object that a configuration describes; options win over it. Raises ValueError as `check_module` does."""
    check_module(config, registry, **options)
    return registry.module_dict[config["type"]](**{key: value for key, value in config.items() if key != "type"} | options)
