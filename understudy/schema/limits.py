"""What is asked of a version before it takes over and after, and where what came true is found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Probation:
    """How long a new version in Production is watched, and what brings the one before it back; see docs/promotion.md.

    Args:
        minutes: That it has to stand at least, above 0.
        rows: That it has to be asked at least, above 0.
        shift: How far its mean probability may be from the one that is expected, 0 to 1.
    """

    minutes: float = 60
    rows: int = 1_000
    shift: float = 0.1


@dataclass(frozen=True)
class Limits:
    """How much worse than the version in Production a new one may be, and who lets it in; see docs/promotion.md.

    Args:
        margin: How far its area under the ROC curve may lie below that of the version it replaces, 0 to 1.
        slice_margin: How far its mean log loss on a group of rows may lie above that version's, in nats.
        milliseconds: That the answer to one row may take.
        megabytes: That its files may have, in millions of bytes.
        probation: How it is watched once it is in Production; None for not at all.
        approval: Whether a second person has to approve that it goes to Production.
    """

    margin: float = 0.05
    slice_margin: float = 0.05
    milliseconds: float = 300
    megabytes: float = 200
    probation: Probation | None = None
    approval: bool = False


@dataclass(frozen=True)
class Live:
    """Where the live server is, and what came true of its answers.

    Args:
        log: The folder of its row log.
        labels: A file, URL or database's table of ids and labels, as `monitor.py --labels` takes it.
        server: The address that it answers at.
    """

    log: str | None = None
    labels: str | None = None
    server: str = "http://127.0.0.1:1234"
