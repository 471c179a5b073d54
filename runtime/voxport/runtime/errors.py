"""Errors that a user can act on. Each message names the thing, what was expected and the way out."""


class VoxportError(Exception):
    """Base of every error that is the input's or the environment's fault, never a bug of ours."""


class ContractError(VoxportError):
    """A file's contract is missing, malformed, of another version, or no longer true."""


class AudioError(VoxportError):
    """A sound file or an array of samples cannot be used as it is."""


class ChannelError(AudioError):
    """A sound's channels hold different sounds, and one answer was asked for."""


class NoSpeechError(AudioError):
    """A sound holds no speech, and a voice was asked for."""


class LengthError(VoxportError):
    """An input is shorter or longer than the contract allows."""


class TooLongError(LengthError):
    """An input is longer than the contract allows, and not shorter."""


class BackendError(VoxportError):
    """A device, a provider or a package that was asked for is not there."""


class GalleryError(VoxportError):
    """A gallery's file, a name or an embedding cannot be used, or belongs to another model."""


class QueueFullError(VoxportError):
    """A Batcher has as many requests waiting as it may; try again later."""


class BatcherClosedError(VoxportError):
    """A Batcher takes no more requests, or was closed before a request ran."""
