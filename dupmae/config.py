"""Settings: TOML → frozen dataclass and back; unknown keys are errors that name the nearest key.

A config class is a frozen dataclass whose fields are bool, int, float, str, `X | None`, a Literal,
a tuple of strings, or another config class (a TOML table). Its own checks run in `__post_init__`.
"""

from __future__ import annotations

import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from dupmae.errors import DataError, UsageError
from dupmae.files import replacing

T = TypeVar("T")


def load_config(path: Path | None, kind: type[T], overrides: Mapping[str, object]) -> T:
    """Read a TOML file into `kind`.

    Args:
        path: the file; None means the defaults alone.
        kind: a config class.
        overrides: dotted keys that win over the file, as `{"trainer.steps": 10}`; None is ignored.

    Raises:
        DataError: the file cannot be read or is not TOML.
        UsageError: a key is unknown, or a value has another type or range.
    """
    table = {} if path is None else _read_toml(path)
    for key, value in overrides.items():
        if value is not None:
            _override(table, key, value)
    return _build(kind, table, str(path) if path else "the command line", "")


def parse_overrides(pairs: Sequence[str]) -> dict[str, object]:
    """Turn `key=value` pairs into overrides; a value is TOML, or else taken as a string.

    Raises:
        UsageError: a pair has no equals sign.
    """
    overrides: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"a setting is given as KEY=VALUE, found {pair!r}")
        try:
            overrides[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            overrides[key] = value
    return overrides


def save_config(config: object, path: Path) -> None:
    """Write the resolved config as TOML that `load_config` reads back to an equal value."""
    with replacing(path) as file:
        file.write(("\n".join(_toml_lines(config, "")).strip() + "\n").encode())


def flat_config(config: object, prefix: str = "") -> dict[str, object]:
    """Return every setting under its dotted key, as `{"trainer.steps": 10}`."""
    assert is_dataclass(config)
    flat: dict[str, object] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            flat |= flat_config(value, f"{prefix}{field.name}.")
        else:
            flat[prefix + field.name] = value
    return flat


def _override(table: dict[str, Any], key: str, value: object) -> None:
    """Put a value at a dotted key, making the tables on the way."""
    *parents, name = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UsageError(f"{key} cannot be set: {parent} is {table!r}, not a table")
    table[name] = value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the config {path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid TOML: {error}") from error


def _build(kind: type[T], table: Mapping[str, Any], where: str, prefix: str) -> T:
    assert is_dataclass(kind)
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(known)}"
            raise UsageError(f"unknown setting {prefix}{key} in {where}; {hint}")
    values = {key: _convert(hints[key], value, where, prefix + key) for key, value in table.items()}
    for name, field in known.items():
        required = field.default is MISSING and field.default_factory is MISSING
        if required and name not in values:
            raise UsageError(f"setting {prefix}{name} is missing in {where}")
    return typing.cast(T, kind(**values))


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UsageError(f"{key} in {where} must be a table [{key}], found {value!r}")
        return _build(typing.cast(type, hint), value, where, f"{key}.")
    if origin in (typing.Union, types.UnionType):
        return _convert(next(o for o in options if o is not type(None)), value, where, key)
    if origin is typing.Literal:
        fits = value in options
    elif origin is tuple:
        fits = isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
        value = tuple(value) if fits else value
    elif hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        fits = fits and math.isfinite(value)
        value = float(value) if fits else value
    else:
        fits = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    if not fits:
        wanted = " or ".join(map(repr, options)) if origin is typing.Literal else _name(hint)
        raise UsageError(f"{key} in {where} must be {wanted}, found {value!r}")
    return value


def _name(hint: Any) -> str:
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a finite number",
        str: "a string",
    }
    return names.get(hint, "a list of strings")


def _toml_lines(config: object, prefix: str) -> list[str]:
    assert is_dataclass(config)
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    plain = {k: v for k, v in values.items() if not is_dataclass(v) and v is not None}
    lines = [f"{key} = {_toml_value(value)}" for key, value in plain.items()]
    for key, value in values.items():
        if is_dataclass(value):
            lines += ["", f"[{prefix}{key}]", *_toml_lines(value, f"{prefix}{key}.")]
    return lines


def _toml_value(value: object) -> str:
    # JSON's spelling of strings, lists, finite numbers and booleans is TOML's, but for one sign.
    text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")
