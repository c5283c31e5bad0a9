"""Settings survive a round trip, and every mistake is named with its key and its place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dupmae.config import flat_config, load_config, parse_overrides, save_config
from dupmae.errors import DataError, UsageError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    kind: Literal["fast", "slow"] = "fast"
    deep: bool = False


@dataclass(frozen=True)
class Settings:
    files: tuple[str, ...]
    steps: int = 10
    name: str = "run"
    inner: Inner = field(default_factory=Inner)
    other: Inner | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError("steps must be at least 1")


def load(tmp_path: Path, toml: str, **overrides: object) -> Settings:
    path = tmp_path / "settings.toml"
    path.write_text(toml, encoding="utf-8")
    return load_config(path, Settings, overrides)


inner = st.builds(
    Inner,
    rate=st.floats(allow_nan=False, allow_infinity=False),
    kind=st.sampled_from(["fast", "slow"]),
    deep=st.booleans(),
)
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.builds(
        Settings,
        files=st.lists(texts).map(tuple),
        steps=st.integers(1, 2**53),
        name=texts,
        inner=inner,
        other=st.none() | inner,
    )
)
def test_saved_settings_load_as_equal_values(
    tmp_path_factory: pytest.TempPathFactory, settings: Settings
) -> None:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    save_config(settings, path)
    assert load_config(path, Settings, {}) == settings


def test_defaults_fill_what_the_file_leaves_out(tmp_path: Path) -> None:
    settings = load(tmp_path, 'files = ["a"]\n[other]\nrate = 2\n')
    assert settings == Settings(("a",), other=Inner(rate=2.0))
    assert settings.other is not None
    assert isinstance(settings.other.rate, float)


def test_no_file_means_defaults_and_overrides() -> None:
    assert load_config(None, Settings, {"files": ["a"], "steps": None}) == Settings(("a",))


def test_overrides_win_over_the_file_and_make_tables(tmp_path: Path) -> None:
    overrides = {"inner.rate": 3, "other.kind": "slow"}
    settings = load(tmp_path, 'files = ["a"]\ninner.rate = 1\ninner.deep = true', **overrides)
    assert settings.inner == Inner(rate=3.0, deep=True)
    assert settings.other == Inner(kind="slow")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('files = ["a"]\nstep = 3', r"unknown setting step in .*toml; did you mean steps\?"),
        ("files = []\n[inner]\nrated = 3", r"unknown setting inner\.rated .* mean inner\.rate\?"),
        ("files = []\nxyz = 3", r"unknown setting xyz .* known: files, steps, name, inner, other"),
        ("steps = 3", r"setting files is missing in .*settings\.toml"),
        ('files = "a"', r"files in .* must be a list of strings, found 'a'"),
        ("files = [1]", r"files in .* must be a list of strings, found \[1\]"),
        ("files = []\nsteps = 1.0", r"steps in .* must be a whole number, found 1\.0"),
        ("files = []\nsteps = true", r"steps in .* must be a whole number, found True"),
        ("files = []\nname = 1", r"name in .* must be a string, found 1"),
        ("files = []\ninner = 1", r"inner in .* must be a table \[inner\], found 1"),
        ("files = []\ninner.deep = 1", r"inner\.deep in .* must be true or false, found 1"),
        ("files = []\ninner.rate = true", r"inner\.rate in .* must be a finite number, found True"),
        ("files = []\ninner.rate = nan", r"inner\.rate in .* must be a finite number, found nan"),
        ("files = []\nother.rate = inf", r"other\.rate in .* must be a finite number, found inf"),
        ('files = []\ninner.kind = "f"', r"inner\.kind in .* must be 'fast' or 'slow', found 'f'"),
        ("files = []\nsteps = 0", "steps must be at least 1"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(tmp_path: Path, toml: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(tmp_path, toml)


def test_an_override_cannot_go_through_a_plain_value(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"steps\.x cannot be set: steps is 3, not a table"):
        load(tmp_path, "files = []\nsteps = 3", **{"steps.x": 1})


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"settings\.toml is not valid TOML: .*line 2"):
        load(tmp_path, "files = []\nsteps 3")
    with pytest.raises(DataError, match=r"cannot read the config .*absent\.toml: No such file"):
        load_config(tmp_path / "absent.toml", Settings, {})


def test_a_config_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    save_config(Settings(("a",)), path)

    def fail(_descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        save_config(Settings(("b",)), path)
    assert load_config(path, Settings, {}) == Settings(("a",))
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.toml"]


def test_flat_settings_have_dotted_keys() -> None:
    flat = flat_config(Settings(("a",), other=Inner(rate=1.0)))
    assert flat["files"] == ("a",)
    assert flat["inner.rate"] == 0.5
    assert flat["other.rate"] == 1.0
    assert "inner" not in flat


def test_overrides_are_toml_or_else_strings() -> None:
    pairs = ["a.b=1e-4", "c=true", 'd=["x", "y"]', "e=runs/x", 'f="1"', "g=", "h=a=b"]
    assert parse_overrides(pairs) == {
        "a.b": 1e-4, "c": True, "d": ["x", "y"], "e": "runs/x", "f": "1", "g": "", "h": "a=b",
    }  # fmt: skip


def test_an_override_needs_an_equals_sign() -> None:
    with pytest.raises(UsageError, match="KEY=VALUE, found 'steps'"):
        parse_overrides(["steps"])
