"""Who imports whom, read from the source: never upward, and torch in `dupmae` only.

What the commands import is seen when they run: `test_without_extras.py`.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIERS = [
    {"errors", "files", "hardware", "types"},
    {
        "client",
        "cls_attention",
        "contrastive",
        "decoder",
        "heads",
        "inputs",
        "onnx_format",
        "packed",
        "processes",
        "readings",
        "results",
    },
    {"config", "folder", "locating", "model", "seal", "term_weights", "texts"},
    {
        "base_encoder",
        "data",
        "masking",
        "neighbours",
        "packing",
        "pooling",
        "reader",
        "stored",
        "tokens",
        "weights",
    },
    {"card", "graph", "objective", "represent", "run_folder", "state", "vocabulary"},
    {
        "checkpoint",
        "probe",
        "runtime",
        "short",
        "teachers",
        "torch_network",
        "trainer",
        "whole_graph",
    },
    {"batch", "encoder", "initialise", "torch_encoder"},
    {"device_encoder", "onnx_export", "retrieval_loss"},
    {"finetune", "pretrain"},
    {"stages"},
    {"adapt"},
    {"integrations", "server"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
"""Modules of `dupmae/`; each imports from tiers above its own line only."""
PACKAGES = {
    "indexes": {"errors", "files", "types", "indexes"},
    "engine": {"errors", "files", "results", "types", "indexes", "engine"},
    "eval": {"errors", "files", "results", "types", "eval"},
    "dupmae/server": {"errors", "results", "types", "engine", "server"},
}
"""What the other folders may import of `dupmae`."""
NETWORK = {"torch", "transformers", "onnxruntime", "tokenizers", "safetensors", "huggingface_hub"}


def imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(names: set[str]) -> set[str]:
    """Return the second part of names in `dupmae`: its module or subpackage."""
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "dupmae" and part[1] != "__version__"}


def test_every_module_has_a_tier() -> None:
    modules = {path.stem for path in (ROOT / "dupmae").glob("*.py")} - {"__init__"}
    assert modules | {"commands", "integrations", "server"} == set().union(*TIERS)


def test_the_model_package_never_imports_upward() -> None:
    below: set[str] = set()
    for tier in TIERS:
        for module in tier - {"commands", "integrations", "server", "cli", "__main__"}:
            found = own(imports(ROOT / "dupmae" / f"{module}.py"))
            assert found <= below, f"{module} imports {found - below}"
        below |= tier


def test_indexing_and_searching_reach_no_torch() -> None:
    reached, waiting = set(), {"encoder"}
    while waiting:
        module = waiting.pop()
        reached.add(module)
        names = imports(ROOT / "dupmae" / f"{module}.py")
        assert not {name.split(".")[0] for name in names} & {"torch", "transformers"}, module
        waiting |= own(names) - reached
    assert {"runtime", "seal", "folder"} <= reached


def test_the_other_packages_import_only_what_is_drawn() -> None:
    for package, allowed in PACKAGES.items():
        for path in (ROOT / package).glob("*.py"):
            names = imports(path)
            assert own(names) <= allowed, f"{path} imports {own(names) - allowed}"
            assert not {name.split(".")[0] for name in names} & NETWORK, path


def test_folders_are_one_deep() -> None:
    for package in ("dupmae/commands", "dupmae/integrations", *PACKAGES):
        assert not list((ROOT / package).glob("*/*.py")), package


def test_files_stay_short() -> None:
    files = [*ROOT.glob("dupmae/**/*.py"), *(p for f in PACKAGES for p in (ROOT / f).glob("*.py"))]
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: lines for path, lines in lengths.items() if lines > 350} == {}
