"""Who may ask a server: keys, names, origins; and what every answer's headers say."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
from click.testing import CliRunner
from serving import READ, WRITE, problem, serving, write_index

from dupmae.cli import main
from dupmae.errors import UsageError
from dupmae.server.keys import KEYS_VARIABLE, ApiKeys
from dupmae.server.observe import CONTENT_POLICY

KEYS = ApiKeys.parse([f"read {READ}", f"write {WRITE}"], "test")
SITE = "https://example.org"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_index(tmp_path_factory.mktemp("guarded") / "demo")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<!doctype html><title>page</title>")
    (tmp_path / "page" / "app.js").write_text("1;")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "page"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_keys_open_what_their_scope_allows(folder: Path, page: Path) -> None:
    with serving(folder, keys=KEYS, writable=True, page_folder=page) as client:
        for path in ("/", "/assets/app.js", "/health", "/ready", "/openapi.json"):
            assert client.get(path).status_code == 200, path
        for path in ("/indexes", "/info", "/metrics", "/documents/sun", "/nothing"):
            assert problem(client.get(path))[:2] == (401, "no_key"), path
            assert client.get(path, headers=bearer(READ)).status_code != 401, path
        for headers in ({}, bearer("wrong"), bearer(""), {"Authorization": READ}):
            refused = client.post("/search", json={"query": "d"}, headers=headers)
            assert problem(refused)[:2] == (401, "no_key")
            assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert client.post("/search", json={"query": "d"}, headers=bearer(READ)).is_success
        assert client.post("/search", json={"query": "d"}, headers=bearer(WRITE)).is_success
        deletes = {"where": "year = 1"}
        refused = client.post("/delete", json=deletes, headers=bearer(READ))
        assert problem(refused)[:2] == (403, "read_only_key")
        assert problem(client.delete("/documents/sun", headers=bearer(READ)))[0] == 403
        assert client.post("/delete", json=deletes, headers=bearer(WRITE)).is_success


def test_a_key_is_asked_for_before_a_body_is_read(folder: Path) -> None:
    with serving(folder, keys=KEYS, writable=True, max_documents_body=10) as client:
        assert client.post("/documents", content=b"x" * 100).status_code == 401


def test_keys_are_read_from_lines_plain_or_hashed() -> None:
    digest = hashlib.sha256(WRITE.encode()).hexdigest()
    keys = ApiKeys.parse(["# a comment", "", f" read {READ} ", f"write sha256:{digest}"], "k")
    assert (keys.scopes(READ), keys.scopes(WRITE)) == ({"read"}, {"read", "write"})
    assert keys.scopes("other") == keys.scopes("\ud800") == frozenset()
    assert READ not in repr(keys)


@pytest.mark.parametrize(
    "line", ["admin " + READ, READ, "read", f"read {READ} {READ}", "read short", "read sha256:abc"]
)
def test_a_line_that_is_no_key_is_an_error_that_does_not_repeat_it(line: str) -> None:
    with pytest.raises(UsageError, match=r"^keys, line 2: ") as caught:
        ApiKeys.parse(["", line], "keys")
    assert READ not in str(caught.value)
    assert "short" not in str(caught.value)


def test_keys_come_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, f"read {READ}\nwrite {WRITE}")
    assert len(ApiKeys.load(None)) == 2
    path = tmp_path / "keys"
    path.write_text(f"read {READ}\n")
    path.chmod(0o644)
    assert len(ApiKeys.load(path)) == 1
    assert "chmod 600" in caplog.text
    path.write_text("# none\n")
    with pytest.raises(UsageError, match="holds no API keys"):
        ApiKeys.load(path)
    with pytest.raises(UsageError, match="cannot be read"):
        ApiKeys.load(tmp_path / "absent")


def test_beyond_this_machine_the_server_does_not_start_without_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.1", "search.example.org"):
        result = CliRunner().invoke(main, ["serve", "--host", host, "--index", str(tmp_path)])
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert "API keys are needed" in line


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""]
)
def test_other_names_in_the_host_header_are_not_answered(folder: Path, host: str) -> None:
    with serving(folder, hosts=("localhost", "127.0.0.1", "::1")) as client:
        refused = client.post("/search", json={"query": "d"}, headers={"Host": host})
        assert problem(refused)[:2] == (421, "bad_host")
        for own in ("localhost:8080", "127.0.0.1", "[::1]:8080", "LOCALHOST"):
            assert client.get("/health", headers={"Host": own}).is_success


def test_pages_of_other_sites_may_not_send_unless_named(folder: Path) -> None:
    with serving(folder, writable=True) as client:
        own = {"Origin": "http://127.0.0.1:8080"}
        assert client.post("/search", json={"query": "d"}, headers=own).is_success
        for origin in (SITE, "null", "http://127.0.0.1:9999", "http://127.0.0.1:8080.evil.example"):
            refused = client.request("DELETE", "/documents/sun", headers={"Origin": origin})
            assert problem(refused)[:2] == (403, "bad_origin")
        assert "access-control-allow-origin" not in client.get("/health", headers=own).headers
    with serving(folder, cors=(SITE,), keys=KEYS) as client:
        asks = {"Origin": SITE, "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, content-type"}  # fmt: skip
        assert client.options("/search", headers=asks).is_success
        answer = client.post(
            "/search", json={"query": "d"}, headers={"Origin": SITE} | bearer(READ)
        )
        assert answer.headers["access-control-allow-origin"] == SITE
        refused = client.options("/search", headers=asks | {"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("origin", ["*", "example.org", "https://*.example.org", "https://a/b"])
def test_an_origin_that_is_none_is_refused(folder: Path, origin: str) -> None:
    with pytest.raises(UsageError, match="--cors takes an origin"), serving(folder, cors=(origin,)):
        pass


def test_every_answer_has_the_security_headers(folder: Path, page: Path) -> None:
    with serving(folder, page_folder=page) as client:
        for response in (
            client.get("/"),
            client.get("/health"),
            client.get("/nothing"),
            client.post("/search", content=b"{"),
            client.post("/search", content=b"x" * (2 << 20)),
        ):
            assert response.headers["Content-Security-Policy"] == CONTENT_POLICY
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["X-Frame-Options"] == "DENY"
            assert response.headers["Referrer-Policy"] == "no-referrer"
        assert "'unsafe" not in CONTENT_POLICY
        assert client.get("/info").headers["Cache-Control"] == "no-store"
        assert client.get("/").headers["Cache-Control"] == "no-cache"


def test_only_the_files_of_the_page_are_given(folder: Path, page: Path) -> None:
    with serving(folder, page_folder=page) as client:
        assert client.get("/").headers["content-type"] == "text/html; charset=utf-8"
        assert client.get("/assets/app.js").text == "1;"
        for name in (
            "../secret.txt", "..%2Fsecret.txt", "%2e%2e/secret.txt", "%2e%2e%2fsecret.txt",
            "..%5Csecret.txt", "%2Fetc%2Fpasswd", "app.js/", "app.js%00", "", ".", "page",
        ):  # fmt: skip
            response = client.get(f"/assets/{name}")
            assert response.status_code == 404, name
            assert "secret" not in response.text


def test_documents_with_html_are_json_and_never_a_page(folder: Path) -> None:
    with serving(folder) as client:
        found = client.get("/documents/%3Cb%3E")
        assert found.headers["content-type"] == "application/json"
        assert found.json()["text"].startswith("<script>")


def test_no_query_key_or_id_is_in_the_log(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), serving(folder, keys=KEYS) as client:
        client.post("/search?index=demo&q=private", json={"query": "private"}, headers=bearer(READ))
        client.get("/documents/private%2Fid", headers=bearer(READ))
        client.post("/search", json={"query": "d"}, headers=bearer("private"))
    ours = [each.getMessage() for each in caplog.records if each.name.startswith("dupmae")]
    assert any(line.startswith("POST /search 200 ") for line in ours)
    assert any(line.startswith("GET /documents/{doc_id:path} 404 ") for line in ours)
    assert "private" not in "\n".join(ours)
    assert READ not in "\n".join(ours)
