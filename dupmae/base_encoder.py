"""What every encoder does with texts, whatever runs the network behind it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

from tokenizers import Tokenizer

from dupmae.heads import HeadSettings
from dupmae.inputs import TEXTS_AT_ONCE, goes_on, readable, spans
from dupmae.locating import TermLocator
from dupmae.types import CorpusStatistics, Encoded, Int32, Int64, TermSpans


class BaseEncoder(ABC):
    """A tokenizer in front of a network. Several threads may use one encoder at once."""

    def __init__(
        self, name: str, heads: HeadSettings, tokenizer: Tokenizer, special_ids: Collection[int]
    ) -> None:
        """Take a tokenizer over; its padding and truncation are set here alone."""
        self.name = name
        self.heads = heads
        """How the two vectors are formed and weighed."""
        self.vocabulary_size = tokenizer.get_vocab_size()
        """One more than the largest term id."""
        self._special_ids = frozenset(special_ids)
        self._tokenizer = tokenizer
        self._locator = TermLocator(tokenizer, heads.max_document_length, self._special_ids)
        self._tokenizing = threading.Lock()  # a tokenizer has one truncation for all threads

    @property
    @abstractmethod
    def seal(self) -> str:
        """Hex digest of all that decides the vectors."""

    @property
    @abstractmethod
    def runtime(self) -> str:
        """What runs the model: the library's version, the precision, the processor."""

    @property
    def dense_dim(self) -> int:
        """Dimensions of a dense vector."""
        return self.heads.dense_dim

    @property
    def max_document_length(self) -> int:
        """Tokens of a document that are read, special ones included."""
        return self.heads.max_document_length

    @property
    def borrowed_terms(self) -> int:
        """Terms that a document borrows at most, unless an index is told otherwise."""
        return self.heads.borrowed_terms

    def term_texts(self, terms: Sequence[int]) -> list[str]:
        """Return the vocabulary's entries for the given term ids."""
        return [str(self._tokenizer.id_to_token(int(term))) for term in terms]

    def locate_terms(
        self, texts: Sequence[str], wanted: Sequence[Int32 | None] | None = None
    ) -> list[TermSpans]:
        """Return where each text's own terms occur, as far as it is read as a document.

        Args:
            texts: any strings.
            wanted: of each text that is read whole, which terms (m,) to look for; None: all.
        """
        with self._tokenizing:
            return self._locator.locate(texts, wanted)

    def token_spans(self, texts: Sequence[str]) -> list[Int64]:
        """Return the characters of all of each text's tokens, (n, 2), special ones left out."""
        with self._tokenizing:
            self._tokenizer.no_truncation()
            return [spans(text, self._spans) for text in texts]

    def encode_queries(
        self, texts: Sequence[str], corpus: CorpusStatistics | None = None
    ) -> Encoded:
        """Encode texts as queries, in their order.

        Args:
            texts: any strings.
            corpus: where they will be searched for; without it a model with `corpus_idf` uses
                the idf of its training text.
        """
        ids, _ = self._token_ids(texts, self.heads.max_query_length)
        return self._encode_queries(ids, corpus)

    def encode_documents(self, texts: Sequence[str]) -> Encoded:
        """Encode texts as documents, in their order."""
        return self.encode_tokenised(self.tokenise_documents(texts))

    def tokenise_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Do the first half of `encode_documents`: return each text's token ids.

        The next texts may be tokenised by one thread while another encodes these.
        """
        return self.read_documents(texts)[0]

    def read_documents(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Return what `tokenise_documents` does, and which texts go on behind what is read."""
        return self._token_ids(texts, self.heads.max_document_length)

    @abstractmethod
    def encode_tokenised(self, ids: Sequence[Sequence[int]]) -> Encoded:
        """Do the second half: encode what `tokenise_documents` returned, in its order."""

    @abstractmethod
    def _encode_queries(
        self, ids: Sequence[Sequence[int]], corpus: CorpusStatistics | None
    ) -> Encoded:
        """Encode queries of which the token ids are given."""

    def _token_ids(
        self, texts: Sequence[str], max_length: int
    ) -> tuple[list[list[int]], list[bool]]:
        """Return each text's first ids, and whether it goes on behind them."""
        ids: list[list[int]] = []
        cut = [goes_on(text, max_length) for text in texts]
        with self._tokenizing:
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(max_length)
            for start in range(0, len(texts), TEXTS_AT_ONCE):
                some = [readable(text, max_length) for text in texts[start : start + TEXTS_AT_ONCE]]
                for encoding in self._tokenizer.encode_batch_fast(some):
                    cut[len(ids)] |= bool(encoding.overflowing)
                    ids.append(encoding.ids)
        return ids, cut

    def _spans(self, text: str) -> list[tuple[int, int]]:
        return self._tokenizer.encode(text, add_special_tokens=False).offsets
