"""``np``: numpy, imported when it is first used: a question of a few rows does without, and takes as long as that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]
else:
    Array = Any

    class _Numpy:
        """Has what numpy has."""

        def __getattr__(self, name: str) -> Any:
            import numpy  # noqa: ICN001  (``np`` is what stands for it)

            found = getattr(numpy, name)
            setattr(self, name, found)
            return found

    np = _Numpy()

__all__ = ["Array", "np"]
