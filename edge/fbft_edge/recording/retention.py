"""Which recordings stay: new ones in, the oldest out, within bytes and age, nominal before anomalous.

Knows nothing about how recordings are made or removed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from fbft_edge.clock import now_ns
from fbft_edge.recording.folder import RecordingFolder
from fbft_edge.recording.recordings import Place, date_and_time

DAY_NS = 86_400 * 10**9


class Retention:
    """The recordings of a folder; used by one thread, its attributes may be read by any.

    Args:
        folder: Holds them.
        max_bytes: Most that their files take together.
        max_age_ns: Older ones go; 0 for no limit.

    Attributes:
        stored_bytes: What their files take together, as of the last look and what happened since.
        removed: Recordings that went, or were not kept because only anomalous ones could have gone for them.
    """

    def __init__(self, folder: RecordingFolder, max_bytes: int, max_age_ns: int) -> None:
        self._folder, self._max_bytes, self._max_age_ns = folder, max_bytes, max_age_ns
        self._sizes: dict[Place, int] = {}
        self._nominal: deque[Place] = deque()
        self._anomalous: deque[Place] = deque()
        self.stored_bytes = self.removed = 0

    def look(self) -> None:
        """Take note of what is in the folder now, and remove what is too old or too much.

        Raises:
            OSError: A recording cannot be removed.
        """
        self._sizes = self._folder.recordings()
        self.stored_bytes = sum(self._sizes.values())
        for kind, is_anomalous in ((self._nominal, False), (self._anomalous, True)):
            kind.clear()
            kind.extend(sorted(place for place in self._sizes if place.is_anomalous is is_anomalous))
        self._make_room(0, is_anomalous=True)

    def keep(self, place: Place, files: Mapping[str, bytes]) -> bool:
        """Write a recording, after the oldest have made room for it.

        Returns:
            False when there is no room: it is larger than all that may be kept, or is nominal and the rest is not.

        Raises:
            OSError: It cannot be written, or another not be removed.
        """
        num_bytes = sum(map(len, files.values()))
        if not self._make_room(num_bytes, place.is_anomalous):
            self.removed += not place.is_anomalous
            return False
        self._folder.write(place, files)
        self._sizes[place] = num_bytes
        self.stored_bytes += num_bytes
        (self._anomalous if place.is_anomalous else self._nominal).append(place)
        return True

    def _make_room(self, num_bytes: int, is_anomalous: bool) -> bool:
        self._remove_aged()
        removable = self.stored_bytes if is_anomalous else sum(self._sizes[place] for place in self._nominal)
        if self.stored_bytes - removable + num_bytes > self._max_bytes:
            return False
        while self.stored_bytes + num_bytes > self._max_bytes:
            self._remove_first(self._nominal or self._anomalous)
        return True

    def _remove_aged(self) -> None:
        if self._max_age_ns == 0:
            return
        oldest = date_and_time(max(0, now_ns() - self._max_age_ns))
        for kind in (self._nominal, self._anomalous):
            while kind and (kind[0].date, kind[0].name) < oldest:
                self._remove_first(kind)

    def _remove_first(self, kind: deque[Place]) -> None:
        self.removed += self._folder.remove(kind[0])
        self.stored_bytes -= self._sizes.pop(kind.popleft())
