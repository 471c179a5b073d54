"""Known speakers' held-out utterances, their stored features raised: what louder_db costs them, as far as features show it."""

import sys
from pathlib import Path
import numpy as np
from voxport.runtime.frontend.presets import profile
from voxport.train.checkpoint import load_checkpoint
from voxport.train.data import CorpusOptions, open_corpus
from voxport.train.data.collation import WholeUtterances
from voxport.train.effects import mel
from voxport.train.evaluation.inference import answer_whole

corpus = open_corpus(Path(sys.argv[1]), CorpusOptions(profile("psf_fbank40"), progress=False))
frontend = corpus.frontend
for path in sys.argv[2:]:
    checkpoint = load_checkpoint(Path(path))
    places = [
        i
        for i in corpus.indices(checkpoint.split.valid).tolist()
        if mel.exact_energies(corpus.features(i), frontend) is not None
    ]
    labels = corpus.speakers[places]
    line = []
    for raised in (0, 5, 10, 15, 20):
        features = {}
        for i in places:
            energies = mel.audible(mel.exact_energies(corpus.features(i), frontend), frontend) * 10 ** (raised / 10)
            features[i] = mel.features_of(energies, frontend, True)
        answers = answer_whole(
            checkpoint, WholeUtterances(features.__getitem__, places, [len(features[i]) for i in places])
        )
        cosines = answers.scores.max(axis=1) / checkpoint.recipe.model.am_scale
        kept_out = (cosines < checkpoint.rejection.threshold).mean()
        line.append(
            f"+{raised} dB: {100 * (answers.scores.argmax(axis=1) == labels).mean():.1f} % right, {100 * kept_out:.1f} % kept out"
        )
    print(path, len(places), "utterances:", "; ".join(line), flush=True)
