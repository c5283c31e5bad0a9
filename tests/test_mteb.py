"""`mteb` measures our search and both views as `eval` does, on a local task in BEIR's layout."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tiny_model import WORDS, tiny_model, tiny_tokenizer

from dupmae.checkpoint import save_model
from dupmae.engine import SearchEngine, build_index, read_corpus
from dupmae.errors import UsageError
from dupmae.eval import Collection, evaluate, load_beir, own_systems

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # those of mteb and what it imports
    pytest.mark.usefixtures("mteb"),
]

MEASURES = {"nDCG@10": "ndcg_at_10", "R@100": "recall_at_100", "AP@100": "map_at_100"}


@pytest.fixture(scope="module")
def mteb() -> Any:
    """Import it, which takes seconds, in the one process that needs it."""
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    return pytest.importorskip("mteb", reason="mteb is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model(feedback=0.3), tiny_tokenizer(), folder, name="tiny")
    return folder


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    folder = tmp_path_factory.mktemp("data") / "toy"
    (folder / "qrels").mkdir(parents=True)
    generator = random.Random(3)
    texts = [" ".join(generator.choices(WORDS[:12], k=5)) for _ in range(40)]
    corpus = [
        {"_id": f"d{number}", "title": text[:2], "text": text[3:]}
        for number, text in enumerate(texts + texts[:10])  # ten documents tie with others
    ]
    queries = [
        {"_id": f"q{number}", "text": " ".join(generator.choices(WORDS[:12], k=2))}
        for number in range(20)
    ]
    for name, records in (("corpus", corpus), ("queries", queries)):
        lines = [json.dumps(record) + "\n" for record in records]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    lines = [
        f"q{query}\td{document}\t{generator.choice((1, 1, 2))}\n"
        for query in range(20)
        for document in generator.sample(range(50), 4)
    ]
    (folder / "qrels" / "test.tsv").write_text("".join(lines))
    return load_beir(folder)


@pytest.fixture
def task(mteb: Any, collection: Collection) -> Any:
    """Return the collection as a task of mteb's."""
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    class Toy(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="Toy",
            description="Words that stand for themselves.",
            dataset={"path": "local/toy", "revision": "1"},
            type="Retrieval",
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, *arguments: Any, **options: Any) -> None:
            documents = [
                {"id": document.doc_id, "title": document.title, "text": document.text}
                for document in read_corpus(collection.corpus_path)
            ]
            queries = [{"id": key, "text": text} for key, text in collection.queries.items()]
            split = {
                "corpus": Dataset.from_list(documents),
                "queries": Dataset.from_list(queries),
                "relevant_docs": collection.qrels,
                "top_ranked": None,
            }
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Toy()


def scores(mteb: Any, model: Any, task: Any) -> dict[str, float]:
    found = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    (values,) = found.task_results[0].scores["test"]
    return {name: values[theirs] for name, theirs in MEASURES.items()}


def test_mteb_gives_the_exact_hybrid_and_both_views_the_figures_of_eval(
    mteb: Any, collection: Collection, task: Any, model: Path, tmp_path: Path
) -> None:
    from dupmae.integrations.mteb import ExactHybrid
    from dupmae.integrations.sentence_transformers import dense_view, sparse_view

    with ExactHybrid.load(model) as hybrid:
        assert isinstance(hybrid, mteb.models.SearchProtocol)
        build_index(read_corpus(collection.corpus_path), hybrid.encoder, tmp_path / "index")
        with SearchEngine.open(tmp_path / "index", hybrid.encoder) as engine:
            systems = own_systems(engine, feedback=0.3)
            ours = evaluate(systems, collection, k=100, measures=list(MEASURES)).systems
        assert scores(mteb, hybrid, task) == pytest.approx(ours["hybrid"], abs=1e-4)
        assert hybrid.mteb_model_meta.revision == hybrid.encoder.seal
    # mteb's own search breaks ties otherwise, so of the views' figures ties may move a little.
    assert scores(mteb, dense_view(model), task) == pytest.approx(ours["dense"], abs=0.05)
    assert scores(mteb, sparse_view(model), task) == pytest.approx(ours["sparse"], abs=0.05)


def test_only_the_given_documents_are_reranked_in_the_order_of_the_search(model: Path) -> None:
    from dupmae.integrations.mteb import ExactHybrid

    rows = [
        {"id": f"d{number}", "text": " ".join(WORDS[number : number + 4])} for number in range(9)
    ]
    queries = [{"id": "q", "text": f"{WORDS[3]} {WORDS[4]}"}]
    with ExactHybrid.load(model) as hybrid:
        hybrid.index(rows)
        searched = hybrid.search(queries, top_k=9)["q"]
        some = ["d7", "d2", "d4"]
        reranked = hybrid.search(queries, top_k=2, top_ranked={"q": some})["q"]
    expected = [doc_id for doc_id in searched if doc_id in some][:2]
    assert list(reranked) == expected
    assert reranked == {doc_id: searched[doc_id] for doc_id in expected}


def test_a_search_before_anything_is_indexed_is_refused(model: Path) -> None:
    from dupmae.integrations.mteb import ExactHybrid

    with pytest.raises(UsageError, match="nothing is indexed yet"):
        ExactHybrid.load(model).search([], top_k=1)
