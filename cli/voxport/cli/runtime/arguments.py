"""MODEL and GALLERY on the command line: MODEL first, and other orders where the files' content tells them apart."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import click


@contextlib.contextmanager
def naming(gallery: str, strangers: str | None = None) -> Iterator[None]:
    """What is wrong with a gallery is said with its file's name; of strangers their own file is named already."""
    from voxport.runtime import GalleryError

    try:
        yield
    except GalleryError as problem:
        if gallery in str(problem) or (strangers is not None and str(problem).startswith(strangers)):
            raise
        raise GalleryError(f"{gallery}: {problem}") from problem


class Places(NamedTuple):
    """What was named: the model, if one was, the gallery, and the arguments behind them."""

    model: str | None
    gallery: str
    rest: tuple[str, ...]


def find_places(arguments: Sequence[str], model: str | None) -> Places:
    """MODEL GALLERY …, or as before there was a MODEL among the arguments: GALLERY … with --model.

    A first argument is a model where it is a file that holds no gallery (or is missing before one that does), and
    another argument follows: a gallery may not be there yet. GALLERY MODEL … is read as well, as the content tells.

    Raises:
        click.UsageError: MODEL is given twice, or GALLERY is missing.
    """
    from voxport.runtime.backends.formats import is_gallery

    first, *others = arguments
    named_first = bool(others) and os.path.isfile(first) and not is_gallery(first)
    named_first = named_first or (bool(others) and not os.path.lexists(first) and is_gallery(others[0]))
    if model is not None:
        if named_first and is_gallery(others[0]):
            raise click.UsageError(f"MODEL is given twice: {first} and --model {model}")
        return Places(model, first, tuple(others))
    if named_first:
        return Places(first, others[0], tuple(others[1:]))
    if others and is_gallery(first) and _holds_model(others[0]):
        return Places(others[0], first, tuple(others[1:]))
    return Places(None, first, tuple(others))


def _holds_model(path: str) -> bool:
    """Whether a file is a model of voxport, and not a sound that happens to stand there."""
    from voxport.runtime import ContractError, read_contract

    if not os.path.isfile(path):
        return False
    try:
        read_contract(path)
    except ContractError:
        return False
    return True


def refuse_gallery(model: str) -> None:
    """Say what is wrong where a gallery stands in the place of MODEL: its bytes would be taken for a PyTorch file.

    Raises:
        click.UsageError: it does.
    """
    from voxport.runtime.backends.formats import is_gallery

    if is_gallery(model):
        raise click.UsageError(f"{model} is a gallery; MODEL comes first, and the gallery with --gallery {model}")
