"""Where a loaded model came from: what forks and pickles load again."""

import os
from dataclasses import dataclass
from typing import Any

from voxport.runtime.contract import Contract
from voxport.runtime.errors import BackendError, ContractError


@dataclass(frozen=True)
class Origin:
    """The file, the options and the class that loads them. `digest` is that of the contract that was loaded."""

    kind: Any
    path: str
    options: Any
    verified: bool
    digest: str

    @classmethod
    def of(cls, model: Any, path: str, options: Any, verified: bool) -> "Origin":
        """That of `model`, which was loaded from `path`."""
        return cls(type(model), os.path.abspath(path), options, verified, _digest(model.contract))

    def load(self) -> Any:
        """The model again, maybe in another process.

        Raises:
            ContractError: the file's contract is another by now, or the file cannot be used any more.
        """
        model = self.kind.load(self.path, self.options, verify=self.verified)
        if _digest(model.contract) != self.digest:
            raise ContractError(
                f"{self.path}: another model lies there than the one that was loaded; load the model again, and "
                "replace its file only where no other process has yet to open it"
            )
        return model


def reduced(model: Any, origin: Origin | None) -> tuple[Any, ...]:
    """What `__reduce__` of `model` gives.

    Raises:
        BackendError: the model was put together by hand, and has no origin.
    """
    if origin is None:
        name = type(model).__name__
        raise BackendError(f"a model that was not loaded from a file by {name}.load cannot be pickled")
    return Origin.load, (origin,)


def _digest(contract: Contract) -> str:
    import hashlib  # costs milliseconds, and only forks and pickles need it

    return hashlib.sha256(contract.to_json().encode()).hexdigest()
