"""How far a long command has come, on one line of a terminal's stderr."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def live(state: Callable[[], tuple[int, int, str]], *, wanted: bool, color: bool) -> Iterator[Callable[[], None]]:
    """A bar with a text and the time left, while the block runs; ``state`` gives how much of how much, and the text.

    Gives what clears the line, so that something else can be printed.
    """
    if not wanted:
        yield lambda: None
        return
    from rich.console import Console
    from rich.control import Control
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.segment import ControlType

    bars = Bars(
        TextColumn("{task.fields[what]}"), BarColumn(), TimeRemainingColumn(),
        console=Console(stderr=True, no_color=not color), transient=True, refresh_per_second=4,
    )  # fmt: skip
    line = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))
    with bars:
        task = bars.add_task("", total=1, what="")

        def tick() -> None:
            done, total, what = state()
            bars.update(task, completed=done, total=max(total, 1), what=what)

        with _ticking(tick):
            yield lambda: bars.console.control(line)


@contextlib.contextmanager
def _ticking(tick: Callable[[], None]) -> Iterator[None]:
    """Call it a few times a second from a thread, and once at the end."""
    import threading

    done = threading.Event()

    def ticks() -> None:
        while not done.wait(0.2):
            tick()

    thread = threading.Thread(target=ticks, name="hdi-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        tick()


__all__ = ["live"]
