"""The prompt of `search`: its commands in this process, its keys and colours in a real terminal."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest
from fakes import FakeEncoder
from terminal import terminal

from dupmae.commands.answers import Request
from dupmae.commands.display import Display
from dupmae.commands.history import REMEMBERED, History, history_path
from dupmae.commands.prompt import HELP, Session
from dupmae.engine import SearchEngine, build_index
from dupmae.errors import DataError, UsageError
from dupmae.types import Document

DOCUMENTS = [
    Document("whale", "the whale and the sea", "Moby", {"year": 1851}),
    Document("ship", "the ship and the sea", "", {"year": 1900}),
    Document("storm", "a storm at sea", "", {"year": 1900}),
    Document("tree", "a tree", "", {"year": 1950}),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    index = tmp_path_factory.mktemp("built") / "dupmae.index"
    build_index(DOCUMENTS, FakeEncoder(), index)
    return index


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / built.name)
    return tmp_path


@pytest.fixture
def session(folder: Path):
    with SearchEngine.open(folder / "dupmae.index", FakeEncoder()) as engine:
        yield Session(engine, Request(k=2), Display())


def ranks(shown: str) -> list[str]:
    return [line.split()[-1] for line in shown.splitlines() if line[:4].strip()[:-1].isdigit()]


def test_more_goes_on_where_the_last_answer_ended(session: Session) -> None:
    first, second = session.reply("whale"), session.reply(":more")
    assert ranks(first)[0] == "whale"
    assert "  3. " in second
    assert sorted(ranks(first) + ranks(second)) == ["ship", "storm", "tree", "whale"]
    assert session.reply(":more") == "proven: there are no more than 4 documents"
    assert ranks(session.reply("whale")) == ranks(first)


def test_k_and_where_hold_from_then_on_and_ask_again(session: Session) -> None:
    assert session.reply(":where year = 1900") == "from now on 2 of documents with year = 1900"
    assert set(ranks(session.reply("whale sea"))) == {"ship", "storm"}
    assert len(ranks(session.reply(":k 1"))) == 1
    assert ranks(session.reply(":where")) == ["whale"]
    assert len(ranks(session.reply(":k 9"))) == 4


def test_explain_takes_a_rank_of_what_was_shown(session: Session) -> None:
    session.reply("whale")
    third = ranks(session.reply(":more"))[0]
    assert session.reply(":explain 3").startswith(f"{third}: rank 3 of 4, score")
    for rank in ("0", "5"):
        with pytest.raises(UsageError, match=f"a rank from 1 to 4, found {rank}"):
            session.reply(f":explain {rank}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (":more", "nothing was asked yet"),
        (":explain 1", "nothing was asked yet"),
        (":more 3", "takes nothing after it"),
        (":k", "takes a whole number"),
        (":k 0", "at least 1, found 0"),
        (":where year ~ 3", "character 6"),
        (":frobnicate", "no command :frobnicate; :help"),
        (":", "no command :;"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    session: Session, line: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        session.reply(line)
    assert ranks(session.reply(" :whale whale"))[0] == "whale"
    assert session.reply(":help") == HELP


def test_a_new_query_is_answered_from_the_index_as_it_is_now(
    session: Session, folder: Path
) -> None:
    session.reply("whale")
    build_index([Document("new", "whale whale")], FakeEncoder(), folder / "dupmae.index")
    assert "new" not in ranks(session.reply(":more"))  # a page of the answer that was given
    assert "new" in ranks(session.reply("whale"))


def test_the_history_is_its_owners_alone_and_leaves_repeats_out(tmp_path: Path) -> None:
    path = tmp_path / "state" / "dupmae" / "history"
    history = History(path)
    for line in ("whale", "whale", "Ünïcode", "whale"):
        history.add(line)
    assert path.read_text(encoding="utf-8") == "whale\nÜnïcode\nwhale\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_long_history_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("".join(f"{number}\n" for number in range(2 * REMEMBERED + 1)))
    History(path)
    assert path.read_text().split()[0] == str(REMEMBERED + 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_history_that_cannot_be_kept_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    history = History(tmp_path / "folder" / "history")
    (tmp_path / "folder").symlink_to(tmp_path / "file")
    history.add("whale")
    history.add("ship")
    assert capsys.readouterr().err.count("no history is kept") == 1
    with pytest.raises(DataError, match="--no-history"):
        History(tmp_path)  # a folder


def test_the_history_lies_below_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_path() == tmp_path / "dupmae" / "history"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # the standard says to pass over it
    assert history_path() == Path.home() / ".local/state/dupmae/history"


def test_the_prompt_answers_recalls_survives_ctrl_c_and_leaves_by_ctrl_d(folder: Path) -> None:
    with terminal(["search", "-k", "1"], folder, columns=60) as screen:
        assert "4 documents" in screen.wait_for("search> ")
        screen.type("whale\r")
        shown = screen.wait_for("search> ")
        assert "\x1b[" in shown
        assert "proven" in shown
        screen.type("half a que")
        screen.wait_for("half a que")
        screen.interrupt()
        screen.wait_for("search> ")
        screen.type(":k none\r")
        assert "Error: :k takes a whole number" in screen.wait_for("search> ")
        screen.type("\x1b[A\x1b[A\r")  # the arrow key, twice: back to the first query
        assert "whale" in screen.wait_for("search> ")
        assert screen.leave() == 0
    assert (folder / "state/dupmae/history").read_text() == "whale\n:k none\nwhale\n"


@pytest.mark.parametrize(
    "off", [pytest.param("--no-history", marks=pytest.mark.slow), "DUPMAE_NO_HISTORY"]
)
def test_no_colour_and_no_history_where_they_are_not_wanted(folder: Path, off: str) -> None:
    options, env = ([off], {}) if off.startswith("-") else ([], {off: "1"})
    with terminal(["search", *options], folder, env={"NO_COLOR": "1", **env}) as screen:
        screen.wait_for("search> ")
        screen.type("whale\r")
        shown = screen.wait_for("proven")
        assert "\x1b[" not in shown.replace(
            "\x1b[?2004l", ""
        )  # which readline says to the terminal
        screen.wait_for("search> ")
        assert screen.leave() == 0
    assert not (folder / "state").exists()
