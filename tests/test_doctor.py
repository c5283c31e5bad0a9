from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import IO

import pytest
from click.testing import CliRunner, Result
from fakes import FakeEncoder

import dupmae.commands.doctor as doctor_module
from dupmae.cli import main
from dupmae.commands.doctor import EXTRAS, PACKAGES
from dupmae.encoder import Encoder
from dupmae.engine import build_index
from dupmae.errors import CheckpointError
from dupmae.types import Document, Encoded


class Sees(FakeEncoder):
    """A fake of the shipped encoder, to which an answer is like its question in all but one."""

    runtime = "no runtime"
    seal = "0" * 64

    def encode_queries(self, texts, corpus=None):
        return super().encode_queries(["vitamin d"] * len(texts))


@pytest.fixture(scope="module")
def shipped_seal() -> str:
    return Encoder.load().seal


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shipped_seal: str) -> None:
    """Use the fake, begin no Java, and have an empty folder to be in."""
    monkeypatch.setattr(Sees, "seal", shipped_seal)
    monkeypatch.setattr(doctor_module, "load_encoder", lambda model: Sees())
    monkeypatch.setitem(doctor_module.EXTRAS, "lucene", (("no_such_module",), "Lucene"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUPMAE_CACHE", str(tmp_path / "cache"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments])


def checks(*arguments: str, code: int = 0) -> dict[str, dict[str, str]]:
    result = run("--json", *arguments)
    assert result.exit_code == code, result.output
    answer = json.loads(result.stdout)
    assert answer["ok"] == (code == 0)
    assert len({check["name"] for check in answer["checks"]}) == len(answer["checks"])
    return {check["name"]: check for check in answer["checks"]}


def test_everything_is_looked_at_and_well(tmp_path: Path) -> None:
    found = checks()
    assert found.keys() >= {
        "dupmae", "system", "processor", "model", "self-test", "index", "index folder", "disk",
        "cache", "Java", *PACKAGES, *(f"[{extra}]" for extra in EXTRAS),
    }  # fmt: skip
    assert found["index"]["hint"] == "`dupmae index` makes one"
    assert not any(check["cure"] for check in found.values())
    assert not list(tmp_path.iterdir())  # it leaves nothing behind


def test_each_check_is_one_line_with_its_advice() -> None:
    lines = run().stdout.splitlines()
    assert len(lines) == len(checks())
    assert all(line.startswith("ok ") for line in lines)
    (line,) = (line for line in lines if "[lucene]" in line)
    assert "not installed (no_such_module); for Lucene: pip install 'dupmae[lucene]'" in line


def test_what_was_not_compiled_is_named_with_the_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks()["compiled"]["found"] in (
        "the loops of searches and the reading of short texts",
        "not the loops of searches and not the reading of short texts",  # no compiler here
    )
    monkeypatch.setitem(doctor_module.COMPILED, "dupmae.no_such_module", "a loop")
    monkeypatch.setitem(doctor_module.COMPILED, "dupmae.nor_this", "another")
    found = checks()["compiled"]
    assert found["found"].endswith("not a loop and not another")
    assert found["hint"].startswith("install a C compiler, then dupmae again")


def test_an_index_is_opened_and_named(tmp_path: Path) -> None:
    build_index([Document("a", "whale")], Sees(), tmp_path / "dupmae.index")
    found = checks()["index"]["found"]
    assert "dupmae.index: 1 documents by fake" in found
    build_index([Document("a", "whale")], FakeEncoder(), tmp_path / "other.index")
    broken = checks("--index", str(tmp_path / "other.index"), code=1)["index"]
    assert "load that encoder" in broken["cure"]


def test_a_damaged_index_is_broken_with_its_cure(tmp_path: Path) -> None:
    manifest = build_index([Document("a", "whale")], Sees(), tmp_path / "dupmae.index")
    (tmp_path / "dupmae.index" / manifest.files[0].path).unlink()
    result = run()
    assert result.exit_code == 1
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("broken"))
    assert "is missing" in line
    assert "restore a snapshot" in line


@pytest.mark.parametrize("error", [CheckpointError("weights are gone"), ImportError("no onnx")])
def test_a_model_that_cannot_be_loaded_is_broken(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def load(model: str | None) -> None:
        raise error

    monkeypatch.setattr(doctor_module, "load_encoder", load)
    found = checks(code=1)
    assert found["model"]["found"] == str(error)
    assert "--model" in found["model"]["cure"]
    assert "self-test" not in found


def test_a_shipped_model_that_was_changed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sees, "seal", "1" * 64)
    found = checks(code=1)["model"]
    assert "not as shipped" in found["found"]
    assert found["cure"] == "install dupmae again"
    assert not checks("--model", "one of my own")["model"]["cure"]


def test_an_encoder_that_ranks_wrongly_fails_its_self_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def encode(self: Sees, texts: list[str], corpus: object = None) -> Encoded:
        return self._encode(["the court has ruled."] * len(texts))

    monkeypatch.setattr(Sees, "encode_queries", encode)
    found = checks(code=1)["self-test"]
    assert "for the text 'other'" in found["found"]
    assert "again" in found["cure"]


def test_a_self_test_without_a_place_for_it_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
    assert "TMPDIR" in checks(code=1)["self-test"]["cure"]


def test_a_package_that_is_missing_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "PACKAGES", ("no-such-package",))
    assert checks(code=1)["no-such-package"]["cure"] == "install it: pip install no-such-package"


def test_a_folder_that_cannot_be_written_and_a_full_disk_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    temporary = tempfile.TemporaryFile

    def refuse(dir: Path) -> IO[bytes]:
        if Path(dir).resolve() == Path.cwd():
            raise PermissionError(13, "Permission denied")
        return temporary(dir=dir)

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr(doctor_module, "LEAST_SPACE", 1 << 60)
    found = checks()
    assert "Permission denied" in found["index folder"]["found"]
    assert "make room" in found["disk"]["hint"]


def test_the_shipped_model_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "load_encoder", lambda model: Encoder.load(model))
    found = checks()
    assert "dupmae-mini" in found["model"]["found"]
    assert "for the text 'answer'" in found["self-test"]["found"]
