"""Which ids a pass has seen, and where, in about 150 bytes an id: a data set may have millions of rows."""

import hashlib


class SeenIds:
    """Finds ids that come twice. Kept are 128 bits of their sha256; two ids that share those are not expected."""

    def __init__(self) -> None:
        self._places: list[str] = []
        self._seen: dict[bytes, tuple[int, int]] = {}

    def add(self, identifier: str, place: str) -> None:
        """Remember an id and its place, "file, row N"; ValueError names the place that had it before."""
        file, _, number = place.rpartition(", row ")
        if not self._places or self._places[-1] != file:
            self._places.append(file)
        key = hashlib.sha256(identifier.encode()).digest()[:16]
        if key in self._seen:
            before, row = self._seen[key]
            raise ValueError(
                f"id {identifier!r} is also the id of {self._places[before]}, row {row}; ids must be unique"
            )
        self._seen[key] = len(self._places) - 1, int(number)
