"""Known speakers, their stored features raised: what `louder_db` costs them, as far as features show it.

python louder.py DATA MODEL.pt [MODEL.pt ...]

What lies on the floor of the stored features is not known, and stays there. DATA is of the frontend psf_fbank40.
"""

import sys
from pathlib import Path

from voxport.runtime.frontend.presets import profile
from voxport.train.checkpoint import load_checkpoint
from voxport.train.data import CorpusOptions, open_corpus
from voxport.train.data.collation import Features, WholeUtterances
from voxport.train.effects import mel
from voxport.train.evaluation.inference import answer_whole

FRONTEND = profile("psf_fbank40")
RAISED_DB = (0, 5, 10, 15, 20)


def raised_by(features: Features, decibels: float) -> Features:
    """`features` (frames, bands), what is above their floor raised; they themselves where the floor is not seen."""
    energies = mel.exact_energies(features, FRONTEND)
    if energies is None:
        return features
    return mel.features_of(mel.audible(energies, FRONTEND) * 10 ** (decibels / 10), FRONTEND, exact=True)


def main() -> None:
    """Print a line a model and level: the share that is right, and that "nobody known" keeps out."""
    corpus = open_corpus(Path(sys.argv[1]), CorpusOptions(FRONTEND, progress=False))
    for path in sys.argv[2:]:
        checkpoint = load_checkpoint(Path(path))
        places = corpus.indices(checkpoint.split.valid).tolist()
        labels = corpus.speakers[places]
        for decibels in RAISED_DB:
            features = {i: raised_by(corpus.features(i), decibels) for i in places}
            source = WholeUtterances(features.__getitem__, places, [len(features[i]) for i in places])
            scores = answer_whole(checkpoint, source).scores
            right = float((scores.argmax(axis=1) == labels).mean())
            line = f"{path}: {len(places)} utterances, +{decibels} dB: {100 * right:.1f} % right"
            if checkpoint.rejection is not None:
                cosines = scores.max(axis=1) / checkpoint.recipe.model.am_scale
                line += f", {100 * float((cosines < checkpoint.rejection.threshold).mean()):.1f} % kept out"
            sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
