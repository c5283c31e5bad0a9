"""What each step of DupMAE gives: rows that are trained with equal budgets, measured alike.

    python recipes/ablation/ablation.py --start MINILM --data ../shared/beir --out runs/ablation
    python recipes/ablation/ablation.py --table --out runs/ablation

From the repository's root. Each row is made from another one by a command that is run as a user
would run it, one at a time, and measured by `eval`. What is finished is not run again, and what
was interrupted goes on from its checkpoint. What is written:

    rows-N/, mined-N/            N rows of each training file, and the same with hard negatives
    trunk/                       each text's states after the layers that no row trains
    untrained/ROW, seed-S/ROW    each row's run, with its model/ and eval/
    results.json                 a record for each row, seed and collection
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from dupmae.errors import DataError, DupMAEError, TrainingError, UsageError
from dupmae.files import replacing

RECIPES = "recipes/ablation"
MINE = "recipes/mine_negatives.py"
TRUNK = f"{RECIPES}/trunk.py"
LOWER_LAYERS = 4
"""`freeze_layers` of all rows: what these layers give is the same for all rows, and kept."""
MINED_DEPTH = 20
"""Best documents of a query that its negative is drawn from, of one training file's rows."""
EVAL_DEPTH = 100
"""Hits a query that are measured; nDCG@10 needs ten."""
START_SHOWN = "$MINILM"
"""Stands for `--start` in recorded commands, whose figures are not of one machine."""
COLLECTIONS = ("scifact", "nfcorpus", "cranfield")
PARTS = ("hybrid", "dense", "sparse")

Record = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A model: what it is made from, and how; `rows.toml` says what the fields mean."""

    name: str
    config: Literal["heads", "pretrain", "finetune"]
    start: str = ""
    share: float = 0.0
    settings: Sequence[str] = ()
    mined: bool = False
    measured: bool = True


MINER = "start-attention"
"""The row that hard negatives are mined with."""
BY_NAME = {
    name: Row(name, **settings)
    for name, settings in tomllib.loads(
        (Path(__file__).parent / "rows.toml").read_text(encoding="utf-8")
    ).items()
}
"""In the order in which they are run; a row that another is made from is made before it anyway."""
ROWS = tuple(BY_NAME.values())
MEASURED = [row.name for row in ROWS if row.measured]


def lineage(row: Row) -> list[Row]:
    """Return the rows that a row's model came through, itself last."""
    return [*(lineage(BY_NAME[row.start]) if row.start else []), row]


def is_trained(row: Row) -> bool:
    """Say whether any step was taken, so that the seed matters."""
    return any(ancestor.share for ancestor in lineage(row))


@dataclass(frozen=True)
class Ablation:
    """What all rows share, and where they are kept."""

    start: str
    """The start model's folder; it is the mean-pooled teacher as well."""
    out: Path
    train: Path
    """Folder with the training files."""
    data: Path
    """Folder with the collections."""
    steps: int = 240
    """Of every trained row, its pre-training included; each reads 16 documents or blocks."""
    rows: int = 1000
    """Taken of each training file."""
    threads: int = 1

    def folder(self, row: Row, seed: int) -> Path:
        """Return where a row's run is kept."""
        return self.out / (f"seed-{seed}" if is_trained(row) else "untrained") / row.name

    def command(self, row: Row, seed: int) -> list[str]:
        """Return the arguments of Python that make a row's model."""
        before = self.folder(BY_NAME[row.start], seed) / "model" if row.start else self.start
        files = self.rows_files(mined=row.mined)
        teacher = [] if row.config == "pretrain" else ["--teacher", self.start]
        trained = (f"trainer.steps={round(row.share * self.steps)}", f"trainer.seed={seed}")
        settings = (*(trained if row.share else ()), *row.settings)
        return [
            "cli.py", "pretrain" if row.config == "pretrain" else "finetune", *map(str, files),
            "--config", f"{RECIPES}/{row.config}.toml", "--start", str(before), *teacher,
            "--out", str(self.folder(row, seed)), *(f"--set={setting}" for setting in settings),
        ]  # fmt: skip

    def eval_command(self, row: Row, seed: int, collection: str) -> list[str]:
        """Return the arguments of Python that measure a row on a collection."""
        folder = self.folder(row, seed)
        return [
            "cli.py", "eval", "--beir", collection, "--data", str(self.data), "-k", str(EVAL_DEPTH),
            "--model", str(folder / "model"), "--out", str(folder / "eval"),
        ]  # fmt: skip

    def sources(self) -> list[Path]:
        """Return the training files."""
        sources = sorted(self.train.glob("*.jsonl*"))
        if not sources:
            raise DataError(f"{self.train} holds no training file (*.jsonl, plain, .gz or .xz)")
        return sources

    def rows_files(self, *, mined: bool) -> list[Path]:
        """Return the files of rows, with or without hard negatives, there or not."""
        folder = self.out / f"{'mined' if mined else 'rows'}-{self.rows}"
        return [folder / f"{source.name.partition('.')[0]}.jsonl" for source in self.sources()]

    def sample(self) -> None:
        """Write the rows without hard negatives if some are not there yet."""
        files = self.rows_files(mined=False)
        if not all(path.exists() for path in files):
            sources = map(str, self.sources())
            out = ["--out", str(files[0].parent), "--rows", str(self.rows)]
            run([f"{RECIPES}/sample_rows.py", *out, *sources], self)

    def mine(self) -> None:
        """Write the rows with hard negatives, found among the rows of the same file."""
        model = self.folder(BY_NAME[MINER], 0) / "model"
        depth = ["--depth", str(MINED_DEPTH), "--negatives", "1"]
        plain, mined = self.rows_files(mined=False), self.rows_files(mined=True)
        for rows, path in zip(plain, mined, strict=True):
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                collection, index = rows.with_suffix(""), path.with_suffix(".index")
                given = [str(collection), str(path), "--index", str(index), "--model", str(model)]
                run([MINE, *given, *depth], self, trunk=True)
                shutil.rmtree(index)

    def make(self, row: Row, seed: int) -> None:
        """Make a row's model, and first all that it needs, where that is not done yet."""
        if row.start:
            self.make(BY_NAME[row.start], seed)
        if row.mined:
            self.make(BY_NAME[MINER], seed)
            self.mine()
        folder, command = self.folder(row, seed), self.command(row, seed)
        folder.mkdir(parents=True, exist_ok=True)
        begun_by, line = folder / "command.txt", shlex.join(command)
        found = begun_by.read_text(encoding="utf-8") if begun_by.exists() else line
        if found != line:
            raise UsageError(
                f"{folder} was begun by `{found}`, not by `{line}`; use another --out, or delete it"
            )
        begun_by.write_text(line, encoding="utf-8")
        if not (folder / "model").exists():
            run(command, self, trunk=row.config != "pretrain")  # masked anew at every step
        (folder / "checkpoint.pt").unlink(missing_ok=True)  # larger than the model

    def measure(self, row: Row, seed: int, collection: str) -> Record:
        """Return the record of a row on a collection, evaluated if that was not done yet."""
        command = self.eval_command(row, seed, collection)
        place = self.folder(row, seed) / "eval" / collection.replace("/", "-")
        if not (place / "report.json").exists():
            run(command, self, trunk=True)
        shutil.rmtree(place / "index", ignore_errors=True)
        report = json.loads((place / "report.json").read_text(encoding="utf-8"))
        commands = [*(self.command(ancestor, seed) for ancestor in lineage(row)), command]
        return {
            "row": row.name,
            "seed": seed if is_trained(row) else None,
            "collection": collection,
            **{part: report["systems"][part]["nDCG@10"] for part in PARTS},
            "model_seal": report["model_seal"],
            "date": report["date"],
            "trained_texts": self._trained_texts(row, seed),
            "commands": [shown(command, self.start) for command in commands],
        }

    def _trained_texts(self, row: Row, seed: int) -> dict[str, int]:
        """Return how many blocks pre-training has read, and how many documents fine-tuning."""
        texts = {"blocks": 0, "documents": 0}
        for ancestor in lineage(row):
            path = self.folder(ancestor, seed) / "config.toml"
            config = tomllib.loads(path.read_text(encoding="utf-8"))
            steps = config["trainer"]["steps"] * config["trainer"]["batch_size"]
            if ancestor.config == "pretrain":
                texts["blocks"] += steps
            else:
                texts["documents"] += steps * (1 + config["data"]["negatives"])
        return texts


def shown(command: Sequence[str], start: str) -> str:
    """Return a command as it is recorded."""
    words = [START_SHOWN if word == start else shlex.quote(word) for word in command]
    return " ".join(["python", *words])


def run(command: Sequence[str], ablation: Ablation, *, trunk: bool = False) -> None:
    """Run Python with these arguments to its end, with `trunk` through `trunk.py`.

    Raises:
        TrainingError: it failed; what it said is on the screen.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, once it has ended too.
    """
    line = shown(command, ablation.start)
    sys.stderr.write(f"$ {line}\n")
    started = time.perf_counter()
    threads = str(ablation.threads)
    limits = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
    kept = [TRUNK, str(LOWER_LAYERS), str(ablation.out / "trunk")] if trunk else []
    process = subprocess.Popen([sys.executable, *kept, *command], env=os.environ | limits)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()  # it saves a checkpoint first
        raise
    if code:
        raise TrainingError(f"exit code {code} of: {line}")
    sys.stderr.write(f"  {time.perf_counter() - started:.0f} s\n")


def read_results(path: Path) -> list[Record]:
    """Return all records, none if there is no file."""
    if not path.exists():
        return []
    records: list[Record] = json.loads(path.read_text(encoding="utf-8"))
    return records


def keep(record: Record, path: Path) -> None:
    """Put a record into the file, in the place of the one with the same key if there is one."""

    def key(record: Record) -> tuple[object, ...]:
        return record["row"], record["seed"], record["collection"]

    records = [other for other in read_results(path) if key(other) != key(record)]
    with replacing(path) as file:
        file.write((json.dumps([*records, record], indent=1) + "\n").encode())


def table(records: Sequence[Record]) -> str:
    """Return a Markdown table of nDCG@10: sum / dense / sparse, means over the seeds."""
    collections = list(dict.fromkeys(record["collection"] for record in records))
    titles = ["row", "seeds", "blocks + documents", *collections, "mean of the sums"]
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for name in MEASURED:
        own = [record for record in records if record["row"] == name]
        if own:
            lines.append(f"| {' | '.join([name, *_cells(own, collections)])} |")
    return "\n".join(lines)


def _cells(own: Sequence[Record], collections: Sequence[str]) -> list[str]:
    """Return what the table says of one row; its last cell is of the seeds with all collections."""
    seeds = list(dict.fromkeys(record["seed"] for record in own))
    sums = [[record["hybrid"] for record in own if record["seed"] == seed] for seed in seeds]
    means = [mean(values) for values in sums if len(values) == len(collections)]
    spread = f" ± {_figure([(max(means) - min(means)) / 2])}" if len(means) > 1 else ""
    measured = [
        " / ".join(
            _figure([record[part] for record in own if record["collection"] == collection])
            for part in PARTS
        )
        for collection in collections
    ]
    texts = " + ".join(f"{count:,}" for count in own[0]["trained_texts"].values())
    return [
        ", ".join("any" if seed is None else str(seed) for seed in seeds), texts, *measured,
        _figure(means) + spread,
    ]  # fmt: skip


def _figure(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}".removeprefix("0") if values else "–"


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--start", help="the start model, which is the teacher as well")
    parser.add_argument("--data", type=Path, default=Path("../shared/beir"))
    parser.add_argument("--train", type=Path, default=Path("../shared/train"))
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=MEASURED, metavar="ROW")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--collections", nargs="+", default=COLLECTIONS)
    parser.add_argument("--steps", type=int, default=Ablation.steps, help="of each trained row")
    parser.add_argument("--rows", type=int, default=Ablation.rows, help="of each training file")
    parser.add_argument("--threads", type=int, default=Ablation.threads)
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    parsed = parser.parse_args(given)
    if not parsed.start and not parsed.table:
        parser.error("--start is needed to run anything")
    return parsed


def main(given: Sequence[str] | None = None) -> None:
    """Run all rows that are asked for, or print the table."""
    wanted = arguments(given)
    results = wanted.out / "results.json"
    if wanted.table:
        sys.stdout.write(f"{table(read_results(results))}\n")
        return
    ablation = Ablation(
        wanted.start, wanted.out, wanted.train, wanted.data, wanted.steps, wanted.rows,
        wanted.threads,
    )  # fmt: skip
    ablation.sample()
    for seed in wanted.seeds:
        for row in (row for row in ROWS if row.name in wanted.only):
            if is_trained(row) or seed == wanted.seeds[0]:
                ablation.make(row, seed)
                for collection in wanted.collections:
                    keep(ablation.measure(row, seed, collection), results)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the command under way ends as well
    try:
        main()
    except DupMAEError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from there")
