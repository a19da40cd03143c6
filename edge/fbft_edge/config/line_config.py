"""The configuration of a line: a TOML file and the options of the command line in, a checked `LineConfig` out.

Plain dataclasses and no validation library: msgspec stops at the first problem, and of pydantic's messages none could
stay, as each has to say the remedy and keep passwords. Knows nothing about what the values are used for, and opens
nothing but the file and the secrets that it refers to.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from fbft_edge.config.values import (
    MAX_PROBLEMS,
    Address,
    CameraUri,
    Choice,
    Endpoint,
    FilePath,
    FilePaths,
    Flag,
    Name,
    NamedTables,
    Number,
    Place,
    Table,
    Whole,
    read_values,
)
from fbft_edge.errors import ConfigError
from fbft_edge.names import COMMANDS_ENDPOINT, DEFAULT_SITE, ENGINES, RESULTS_ENDPOINT, TRIGGERS, UNDATED
from fbft_edge.plain_file import read_plain
from fbft_edge.ranges import (
    AGE_S,
    DRIFT_WINDOW,
    DURATION_S,
    ENGINE_TIMEOUT_S,
    FPS,
    FROZEN_AFTER,
    LATENCY_S,
    LEVEL,
    NOMINAL_EVERY,
    RECORDINGS_DAYS,
    RECORDINGS_GIB,
    TRIGGER_TIMEOUT_S,
)

MAX_FILE_BYTES = 1 << 16
# tomllib takes time with the square of a key's parts: 64 KiB take 0.4 s with 128 a line, 13 s with 8000.
MAX_LINE_DOTS = 128


@dataclass(frozen=True, slots=True)
class CameraConfig:
    """One camera; its `uri` holds its password, and is left out where the dataclass is shown."""

    name: Annotated[str, Name("names the camera in the topic and the header", "camera")]
    uri: Annotated[str, CameraUri("where its frames come from")] = field(repr=False)
    trigger: Annotated[str, Choice("what makes it take a frame; software: the command `trigger`", TRIGGERS)] = "free"
    trigger_timeout_s: Annotated[
        float, Number("a trigger that brings no frame for so long is a fault", TRIGGER_TIMEOUT_S)
    ] = 1.0
    latency_s: Annotated[
        float | None, Number("how long before its date a picture was taken: exposure, encoder, network", LATENCY_S)
    ] = None
    wait: Annotated[bool, Flag("true: publish fault until it is there, instead of refusing to start")] = False
    frozen_after: Annotated[
        int | None,
        Whole(
            "so many identical frames in a row count as frozen; 0: not checked; left out: by the kind of source",
            FROZEN_AFTER,
        ),
    ] = None
    black_below: Annotated[
        float | None,
        Number("mean level below which a frame is black; 0: not checked; left out: nearly all of it is black", LEVEL),
    ] = None
    white_above: Annotated[
        float | None,
        Number("mean level above which a frame is white; 0: not checked; left out: nearly all of it is white", LEVEL),
    ] = None


@dataclass(frozen=True, slots=True)
class PublishConfig:
    """The socket that results leave by."""

    bind: Annotated[str, Endpoint("where subscribers connect")] = RESULTS_ENDPOINT
    insecure: Annotated[bool, Flag("true: allow results and HTTP beyond this machine in clear text")] = False


@dataclass(frozen=True, slots=True)
class CurveConfig:
    """Encryption and authentication of the publisher and the command socket."""

    secret_key: Annotated[Path, FilePath("the line's own key, mode 0600; fbft-edge keygen makes one", "a file")]
    clients: Annotated[
        Path, FilePath("public keys of subscribers, NAME.key; in commands/ those who may command", "a folder")
    ]


@dataclass(frozen=True, slots=True)
class CommandsConfig:
    """The socket that takes commands."""

    bind: Annotated[str, Endpoint("where commands are taken", COMMANDS_ENDPOINT)]


@dataclass(frozen=True, slots=True)
class TrustConfig:
    """Whose bundles are run."""

    keys: Annotated[
        tuple[Path, ...], FilePaths("Ed25519 public keys; one of them must have signed the bundle", "a file")
    ]


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """What supervision asks."""

    bind: Annotated[str, Address("serves /healthz, /readyz and /metrics")]


@dataclass(frozen=True, slots=True)
class RecorderConfig:
    """Frames that are kept with their results."""

    folder: Annotated[Path, FilePath("where they are kept", "a folder")]
    max_gib: Annotated[float, Number("the oldest go when all together take more", RECORDINGS_GIB)] = 10.0
    max_days: Annotated[float, Number("those that are older go; 0: no limit", RECORDINGS_DAYS)] = 30.0
    nominal_every: Annotated[int, Whole("keep one of so many nominal frames, too; 0: none", NOMINAL_EVERY)] = 0


@dataclass(frozen=True, slots=True)
class DriftConfig:
    """The alarm on scores of nominal frames that creep away from those of calibration."""

    window: Annotated[int, Whole("frames that are looked at together", DRIFT_WINDOW)] = 200


@dataclass(frozen=True, slots=True)
class LineConfig:
    """One line: its cameras, its bundle, and what is done with the results. A section that is None is switched off."""

    bundle: Annotated[Path, FilePath("what the line inspects", "a bundle, a folder NAME.fbft")]
    cameras: Annotated[tuple[CameraConfig, ...], NamedTables("the cameras", CameraConfig)]
    site: Annotated[str, Name("names the line in the topic", "site")] = DEFAULT_SITE
    engine: Annotated[str, Choice("what infers; auto: the fastest that runs here", ENGINES)] = "auto"
    sharpen: Annotated[bool, Flag("true: redraw what is flagged along the frame's own edges; verdicts stay")] = False
    fps: Annotated[float, Number("messages per second and camera", FPS)] = 30.0
    duration_s: Annotated[float | None, Number("stop after so long", DURATION_S)] = None
    preview: Annotated[bool, Flag("true: add a small JPEG of each inspected frame")] = False
    stale_after_s: Annotated[
        float, Number("a verdict may be repeated as it stands for so long; 0: every repeat says stale", AGE_S)
    ] = 0.0
    late_after_s: Annotated[
        float | None, Number("frames older than this get no verdict; 0: any age will do; left out: 2 s and more", AGE_S)
    ] = None
    engine_timeout_s: Annotated[float, Number("inference that takes longer is a fault", ENGINE_TIMEOUT_S)] = 10.0
    publish: Annotated[PublishConfig, Table("the socket that results leave by", PublishConfig)] = PublishConfig()
    curve: Annotated[
        CurveConfig | None, Table("encrypts and authenticates the publisher and the command socket", CurveConfig)
    ] = None
    commands: Annotated[CommandsConfig | None, Table("the socket that takes commands", CommandsConfig)] = None
    trust: Annotated[TrustConfig | None, Table("whose bundles are run", TrustConfig)] = None
    http: Annotated[HttpConfig | None, Table("what supervision asks", HttpConfig)] = None
    recorder: Annotated[RecorderConfig | None, Table("keeps frames with their results", RecorderConfig)] = None
    drift: Annotated[
        DriftConfig | None, Table("the alarm on scores that creep away from those of calibration", DriftConfig)
    ] = None


@dataclass(frozen=True, slots=True)
class Override:
    """A key that an option of the command line sets; its paths are relative to the working directory.

    Attributes:
        key: Dotted, such as `publish.bind`.
        value: As TOML would hold it.
        option: Stands in messages, such as `--bind`.
    """

    key: str
    value: Any
    option: str


def read_config(path: Path | str | None, overrides: Sequence[Override] = ()) -> LineConfig:
    """Read, override and check a configuration.

    Args:
        path: A TOML file of at most 64 KiB; relative paths in it are relative to its folder. None: overrides alone.
        overrides: Win over the file.

    Raises:
        ConfigError: The file cannot be read, or something in it cannot be used; the message has all problems.
    """
    path = None if path is None else Path(path)
    contents = {} if path is None else _contents(path)
    options = {}
    for override in overrides:
        if _set(contents, override):
            options[override.key] = override.option
    place = Place("", options=options) if path is None else Place(str(path), "", path.parent, options)
    values, problems = read_values(LineConfig, contents, place)
    problems += _conflicts(values, place)
    if problems:
        raise ConfigError(problem_lines(problems))
    return LineConfig(**values)


def problem_lines(problems: Sequence[str]) -> str:
    """One line for each problem, at most 50; a single one stands alone."""
    if len(problems) == 1:
        return problems[0]
    more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
    return "\n  ".join((f"{len(problems)} problems", *problems[:MAX_PROBLEMS], *more))


def _contents(path: Path) -> dict[str, Any]:
    text = _text(path)
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_LINE_DOTS:
            cause = f"line {number} has {line.count('.')} dots, at most {MAX_LINE_DOTS} are read"
            raise ConfigError(f"{path}: {cause}; write it on several lines")
    try:
        contents: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{path}: not TOML: {reason}; see docs/configuration.md for an example") from None
    return contents


def _text(path: Path) -> str:
    try:
        raw = read_plain(path, MAX_FILE_BYTES, follow=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot be read: {reason}; name a readable TOML file") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: not UTF-8 (line {line}, byte {error.start}); save it as UTF-8") from None


def _set(contents: dict[str, Any], override: Override) -> bool:
    """Set a key; False where the file has something else than the table that it belongs in."""
    *sections, name = override.key.split(".")
    for section in sections:
        contents = contents.setdefault(section, {})
        if not isinstance(contents, dict):
            return False
    contents[name] = override.value
    return True


def _conflicts(values: Mapping[str, Any], place: Place) -> Iterator[str]:
    """What is wrong between values that are right by themselves."""
    publish, commands = values.get("publish", PublishConfig()), values.get("commands")
    if commands is not None and commands.bind == publish.bind and not publish.bind.endswith(":*"):
        here = place.child("commands").child("bind")
        yield str(here.unusable(f"{commands.bind} is publish.bind, too", "give each an endpoint of its own"))
    for camera in values.get("cameras", ()):
        if camera.trigger == "software" and commands is None:
            here = place.child("cameras").item(camera.name).child("trigger")
            remedy = f'add [commands] with bind = "{COMMANDS_ENDPOINT}", or set trigger to "free"'
            yield str(here.unusable("software needs a command socket, and there is none", remedy))
        if camera.trigger == "software":
            yield from _undated(camera, place.child("cameras").item(camera.name).child("latency_s"))


def _undated(camera: CameraConfig, here: Place) -> Iterator[str]:
    """A trigger is answered by the first picture taken after it, so that it must be known when pictures were taken."""
    if camera.latency_s is None and camera.uri.startswith(UNDATED):
        cause = "missing, and trigger is software: such a stream does not say how long its pictures are on their way"
        yield str(here.unusable(cause, "measure it (docs/cameras.md) and set latency_s to the longest, such as 0.3"))
    elif camera.latency_s is not None and camera.latency_s >= camera.trigger_timeout_s:
        cause = f"{camera.latency_s:g} is not below trigger_timeout_s ({camera.trigger_timeout_s:g})"
        yield str(here.unusable(cause, "raise trigger_timeout_s, or every trigger is missed"))
