"""`info`, `verify`, `delete`, `snapshot`, `restore` and `export`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import one_line, run


def test_delete_takes_a_filter_in_place_of_ids(indexed: Path) -> None:
    one_line(run("delete", "sea", "--where", "year exists"), 2, "--where without ids")
    one_line(
        run("delete", "--missing-ok", "--where", "year exists"), 2, "--missing-ok is about ids"
    )
    assert "deleted 1 documents" in run("delete", "--where", "year exists").stderr
    assert "deleted 0 documents" in run("delete", "--where", "year exists").stderr


def test_info_says_what_the_index_holds(indexed: Path) -> None:
    found = json.loads(run("info", "--json").stdout)
    manifest = json.loads((indexed / "MANIFEST.json").read_text())
    assert {key: found[key] for key in ("documents", "deleted", "generation", "encoder")} == {
        "documents": 3,
        "deleted": 0,
        "generation": 1,
        "encoder": "tiny",
    }
    assert found["seal"] == manifest["encoder_seal"]
    assert found["bytes"] == sum(p.stat().st_size for p in indexed.rglob("segments/**/*.*"))
    assert [segment["name"] for segment in found["segments"]] == ["000001"]
    text = run("info").stdout
    assert re.search(r"^documents +3$", text, re.MULTILINE)
    assert re.search(r"^segment 000001 +3 documents, 0 of them deleted", text, re.MULTILINE)


def test_verify_names_damage_and_ends_with_3(indexed: Path) -> None:
    assert run("verify", "--deep").stdout == "dupmae.index: nothing is wrong\n"
    path = next(indexed.glob("segments/*/forward/weights.npy"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    one_line(run("verify"), 3, "forward/weights.npy has changed")


def test_delete_takes_ids_and_a_file_of_ids(indexed: Path, here: Path, model: Path) -> None:
    one_line(run("delete"), 2, "--ids")
    one_line(run("delete", "sea", "soa"), 1, "soa", "nothing is deleted")
    (here / "ids").write_bytes(b"sky\r\n\nsoa\n")
    (here / "ids.jsonl").write_text('{"_id": "sun"}\n')
    assert "deleted 1 documents" in run("delete", "--ids", "ids", "--missing-ok").stderr
    assert run("delete", "--ids", "ids.jsonl").exit_code == 0
    hits = json.loads(run("search", "ba", "--json", "--model", str(model)).stdout)["hits"]
    assert [hit["id"] for hit in hits] == ["sea"]
    assert run("compact").exit_code == 0
    assert json.loads(run("info", "--json").stdout)["deleted"] == 0
    one_line(run("delete", "--ids", "absent"), 1, "absent")


def test_a_snapshot_is_restored(indexed: Path, model: Path) -> None:
    query = ["search", "ba be", "--json", "--model", str(model)]
    before = run(*query).stdout
    assert run("snapshot", "my.tar").exit_code == 0
    one_line(run("snapshot", "my.tar"), 2, "my.tar is there already")
    one_line(run("restore", "my.tar"), 2, "holds an index")
    assert run("restore", "my.tar", "--index", "again").exit_code == 0
    assert run(*query, "--index", "again").stdout == before


def test_an_exported_index_is_made_again_without_a_model(
    indexed: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = ["search", "ba be", "--json", "--model", str(model)]
    before = run(*query).stdout
    result = run("export", "out.safetensors")
    assert result.exit_code == 0, result.stderr
    one_line(run("export", "out.npz"), 2, "out.jsonl", "there already")
    with monkeypatch.context() as patch:
        patch.setattr("dupmae.commands.index.load_encoder", lambda *_: pytest.fail("a model"))
        again = ["index", "out.jsonl", "--vectors", "out.safetensors", "--index", "again"]
        assert run(*again).exit_code == 0
    assert run(*query, "--index", "again").stdout == before
