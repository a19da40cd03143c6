"""Kinds of value that a configuration key can have: what TOML holds goes in, a checked value or a refusal comes out.

A refusal says file, key, what was found, what is allowed and the remedy, a line for each problem, and no password.
Knows nothing about which keys there are.
"""

from __future__ import annotations

import difflib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_type_hints
from urllib.parse import quote, urlsplit

from fbft_edge.addresses import address_and_port, endpoint_parts
from fbft_edge.config.secrets import with_secrets
from fbft_edge.names import NAME_PATTERN, NAME_RULE, RESULTS_ENDPOINT, RESULTS_FILE_ENDPOINT
from fbft_edge.ranges import Range

MAX_SHOWN = 80
MAX_TEXT = 4096
MAX_ITEMS = 64
MAX_PROBLEMS = 50

_T = TypeVar("_T")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_TYPES = {str: "text", bool: "a truth value", int: "a number", float: "a number", list: "an array", dict: "a table"}


class UnusableError(ValueError):
    """What was found cannot be used; `lines` says why, each a problem with its place, cause and remedy."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands.

    Attributes:
        file: The configuration file; empty when there is none.
        key: The dotted key, or the option of the command line that gave the value.
        folder: What relative paths start from.
        options: Dotted keys that options have set, and by which.
    """

    file: str
    key: str = ""
    folder: Path = Path()
    options: Mapping[str, str] = field(default_factory=dict)

    def child(self, name: str) -> Place:
        """The place of a key in the table that stands here."""
        key = f"{self.key}.{name}" if self.key else name
        if key in self.options:
            return Place("", self.options[key])
        return self if self._is_option else replace(self, key=key)

    def item(self, index: int | str) -> Place:
        """The place of an element of the array that stands here."""
        return self if self._is_option else replace(self, key=f"{self.key}[{index}]")

    def unusable(self, cause: str, remedy: str) -> UnusableError:
        """One problem at this place."""
        return UnusableError(f"{': '.join(part for part in (self.file, self.key) if part)}: {cause}; {remedy}")

    @property
    def _is_option(self) -> bool:
        return self.key.startswith("-")


@dataclass(frozen=True)
class Kind(ABC):
    """A kind of value; `about` says what the key means."""

    about: str
    types: ClassVar[tuple[type, ...]] = (str,)

    @property
    @abstractmethod
    def allowed(self) -> str:
        """What may stand there, in words."""

    def remedy(self, key: str) -> str:
        """What to do about a value that is not allowed."""
        return f"set {key} to {self.allowed}"

    def read(self, found: Any, place: Place) -> Any:
        """Check and convert a value.

        Raises:
            UnusableError: It is not allowed.
        """
        if type(found) not in self.types:
            raise self._refusal(found, place, f"is {_TYPES.get(type(found), 'a date or time')}")
        if isinstance(found, str) and (not 0 < len(found) <= MAX_TEXT or _CONTROL.search(found)):
            raise self._refusal(found, place, f"is not one line of 1 to {MAX_TEXT} characters")
        return self._convert(found, place)

    def _convert(self, found: Any, place: Place) -> Any:
        return found

    def _refusal(self, found: object, place: Place, cause: str) -> UnusableError:
        return place.unusable(f"{shown(found)} {cause}", self.remedy(place.key))


@dataclass(frozen=True)
class Number(Kind):
    """A finite number; TOML's whole numbers are taken, too."""

    within: Range
    types = (int, float)

    @property
    def allowed(self) -> str:
        """The range."""
        return str(self.within)

    def remedy(self, key: str) -> str:
        """The range."""
        return f"set {key} {self.allowed}"

    def _convert(self, found: Any, place: Place) -> float:
        if found not in self.within:
            raise self._refusal(found, place, "is out of range")
        return float(found)


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number."""

    within: Range
    types = (int,)

    @property
    def allowed(self) -> str:
        """The range."""
        return self.within.of("a whole number ")

    def _convert(self, found: Any, place: Place) -> int:
        if found not in self.within:
            raise self._refusal(found, place, "is out of range")
        return int(found)


@dataclass(frozen=True)
class Flag(Kind):
    """True or false."""

    types = (bool,)

    @property
    def allowed(self) -> str:
        """Both."""
        return "true or false"


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words."""

    words: Sequence[str]

    @property
    def allowed(self) -> str:
        """The words."""
        *most, last = (f'"{word}"' for word in self.words)
        return f"{', '.join(most)} or {last}"

    def _convert(self, found: Any, place: Place) -> str:
        if found not in self.words:
            raise self._refusal(found, place, "is none of them")
        return str(found)


@dataclass(frozen=True)
class Name(Kind):
    """What can stand in a topic."""

    what: str

    @property
    def allowed(self) -> str:
        """The characters."""
        return NAME_RULE

    def read(self, found: Any, place: Place) -> str:
        """Check a name, an empty one too."""
        if isinstance(found, str) and not NAME_PATTERN.fullmatch(found):
            cause = f"{self.what} name {shown(found)} cannot stand in a topic"
            raise place.unusable(cause, self.remedy(place.key))
        return str(super().read(found, place))


@dataclass(frozen=True)
class FilePath(Kind):
    """A path, relative to the file that it stands in."""

    what: str

    @property
    def allowed(self) -> str:
        """What it leads to."""
        return f"the path of {self.what}"

    def _convert(self, found: Any, place: Place) -> Path:
        return place.folder / str(found)


@dataclass(frozen=True)
class FilePaths(Kind):
    """An array of paths."""

    what: str
    types = (list,)

    @property
    def allowed(self) -> str:
        """What they lead to."""
        return f"an array of 1 to {MAX_ITEMS} paths, each of {self.what}"

    def _convert(self, found: Any, place: Place) -> tuple[Path, ...]:
        if not 1 <= len(found) <= MAX_ITEMS:
            raise self._refusal(found, place, f"has {len(found)} elements")
        kind = FilePath(self.about, self.what)
        return all_of(partial(kind.read, item, place.item(index)) for index, item in enumerate(found))


@dataclass(frozen=True)
class Endpoint(Kind):
    """A ZeroMQ endpoint to bind; whether it may be is decided where it is bound."""

    example: str = RESULTS_FILE_ENDPOINT

    @property
    def allowed(self) -> str:
        """Two examples."""
        return f"an endpoint such as {RESULTS_ENDPOINT} (port 1 to 65535, or * for any) or {self.example}"

    def _convert(self, found: Any, place: Place) -> str:
        try:
            transport, path = endpoint_parts(found)
        except ValueError:
            raise self._refusal(found, place, "is no endpoint") from None
        return str(found) if transport == "tcp" or path.startswith("@") else f"ipc://{place.folder / path}"


@dataclass(frozen=True)
class Address(Kind):
    """An address of this machine and a port to listen on."""

    @property
    def allowed(self) -> str:
        """An example."""
        return "ADDRESS:PORT such as 127.0.0.1:9090"

    def _convert(self, found: Any, place: Place) -> str:
        try:
            address_and_port(found)
        except ValueError:
            raise self._refusal(found, place, "is no address and port") from None
        return str(found)


@dataclass(frozen=True)
class CameraUri(Kind):
    """A camera's index or URI, with its secrets put in and its relative path made to start from the file's folder."""

    @property
    def allowed(self) -> str:
        """Examples."""
        return "an index or URI such as 0, v4l2:///dev/video0, rtsp://10.0.0.7/stream, file:///clip.mp4"

    def _convert(self, found: Any, place: Place) -> str:
        try:
            uri = with_secrets(found, place.folder)
        except ValueError as error:
            raise place.unusable(*str(error).split("; ", 1)) from None
        scheme, separator, target = uri.partition("://")
        if scheme in ("rtsp", "rtsps"):
            self._check_network(uri, place)
        if uri.isdecimal() or uri.startswith("gstreamer:") or place.folder == Path():
            return uri
        if not separator:
            return str(place.folder / uri)
        is_relative = scheme in ("file", "folder", "v4l2") and not target.startswith("/")
        return f"{scheme}://{quote(os.fsencode(place.folder))}/{target}" if is_relative else uri

    def _check_network(self, uri: str, place: Place) -> None:
        """Take no URI whose password would not be found, and so be shown in messages."""
        target = uri.partition("://")[2]
        try:
            parts = urlsplit(uri)
            is_sound = bool(parts.hostname) and parts.port != 0 and "@" not in target[len(parts.netloc) :]
        except ValueError:
            is_sound = False
        if not is_sound:
            raise place.unusable(
                f"{shown(uri)} has no host and port that can be told from a password",
                "write %2F, %3F, %23 and %40 for the characters /, ?, # and @ in user name, password and path",
            )


@dataclass(frozen=True)
class Table(Kind):
    """A table of keys, read as a dataclass."""

    section: type[Any]
    types: ClassVar[tuple[type, ...]] = (dict,)

    @property
    def allowed(self) -> str:
        """Its keys."""
        return f"a table of {', '.join(kinds(self.section))}"

    def remedy(self, key: str) -> str:
        """How to write one."""
        return f"write a table [{key}] with {', '.join(kinds(self.section))}"

    def _convert(self, found: Any, place: Place) -> Any:
        values, problems = read_values(self.section, found, place)
        if problems:
            raise UnusableError(*problems)
        return self.section(**values)


@dataclass(frozen=True)
class NamedTables(Table):
    """An array of tables, each with a `name` of its own."""

    types = (list,)

    def remedy(self, key: str) -> str:
        """How to write some."""
        return f"write 1 to {MAX_ITEMS} tables [[{key}]], each with {' and '.join(required(self.section))}"

    def _convert(self, found: Any, place: Place) -> tuple[Any, ...]:
        if not 1 <= len(found) <= MAX_ITEMS:
            raise self._refusal(found, place, f"has {len(found)} elements")
        names = [item.get("name") if isinstance(item, dict) else None for item in found]
        places = [place.item(_label(index, names)) for index in range(len(found))]
        table = Table(self.about, self.section)
        sections = (partial(table.read, item, here) for item, here in zip(found, places, strict=True))
        repeats = (partial(_check_new, names, index, here) for index, here in enumerate(places))
        return all_of([*sections, *repeats])[: len(found)]


def kinds(section: type[Any]) -> dict[str, Kind]:
    """The kind of every key of a section, a dataclass whose fields are all `Annotated[TYPE, KIND]`."""
    hints = get_type_hints(section, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


def required(section: type[Any]) -> list[str]:
    """The keys of a section that have no default."""
    return [key.name for key in fields(section) if key.default is MISSING]


def read_values(section: type[Any], found: Mapping[str, Any], place: Place) -> tuple[dict[str, Any], list[str]]:
    """Read a table: the values of its keys that can be used, and the problems of the others."""
    known = kinds(section)
    values: dict[str, Any] = {}
    problems = [_unknown(key, known, place) for key in [key for key in found if key not in known][:MAX_PROBLEMS]]
    for name, kind in known.items():
        here = place.child(name)
        try:
            if name in found:
                values[name] = kind.read(found[name], here)
            elif name in required(section):
                raise here.unusable("missing", kind.remedy(here.key))
        except UnusableError as error:
            problems += error.lines
    return values, problems


def all_of(readings: Iterable[Callable[[], _T]]) -> tuple[_T, ...]:
    """Do every reading.

    Raises:
        UnusableError: Some failed; it has the problems of all.
    """
    results: list[_T] = []
    problems: list[str] = []
    for reading in readings:
        try:
            results.append(reading())
        except UnusableError as error:
            problems += error.lines
    if problems:
        raise UnusableError(*problems)
    return tuple(results)


def shown(found: object) -> str:
    """A value fit for a message: one short line, without passwords."""
    if isinstance(found, (dict, list)):
        return "{...}" if isinstance(found, dict) else "[...]"
    if isinstance(found, bool):
        return str(found).lower()
    if isinstance(found, int) and abs(found) >= 10**18:
        return f"a number of {found.bit_length()} bits"
    return _shortened(repr(_without_user(found)) if isinstance(found, str) else str(found))


def _without_user(text: str) -> str:
    """Hide all that may be a password, however it is written: from `//` to the last `@`."""
    if "@" not in text:
        return text
    start = text.find("//") + 2 if "//" in text else 0
    return f"{text[:start]}***{text[text.rindex('@') :]}"


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _label(index: int, names: Sequence[Any]) -> int | str:
    name = names[index]
    is_clear = isinstance(name, str) and NAME_PATTERN.fullmatch(name) and names.count(name) == 1
    return str(name) if is_clear else index


def _check_new(names: Sequence[Any], index: int, place: Place) -> None:
    name = names[index]
    if isinstance(name, str) and name in names[:index]:
        cause = f"the name {shown(name)} is taken by number {names.index(name)}"
        raise place.child("name").unusable(cause, "give each a name of its own")


def _unknown(key: str, known: Mapping[str, Kind], place: Place) -> str:
    near = difflib.get_close_matches(key[:MAX_SHOWN], known, 1)
    remedy = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
    if place.key and not near:
        remedy += "; keys of the line stand above the first [table]"
    name = key if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", key) else shown(key)
    return str(place.child(name).unusable("unknown key", remedy))
