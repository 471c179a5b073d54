"""Data: one interface over all layouts of corpora.

`open_corpus` checks a corpus, computes and caches its features, and hands out a `Corpus`;
`split_utterances` holds out a validation part; `CropBatches` makes training batches.
"""

from voxport.corpora.errors import CorpusError, Problem
from voxport.corpora.layouts.base import LayoutOptions
from voxport.train.data.builder import open_corpus
from voxport.train.data.corpus import Corpus, CorpusOptions, Description, Utterance
from voxport.train.data.crops import CropBatches
from voxport.train.data.split import Split, split_utterances

__all__ = [
    "Corpus",
    "CorpusError",
    "CorpusOptions",
    "CropBatches",
    "Description",
    "LayoutOptions",
    "Problem",
    "Split",
    "Utterance",
    "open_corpus",
    "split_utterances",
]
