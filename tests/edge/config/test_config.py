"""The configuration file: what is read from it, what is refused and in which words, and that no password is shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fbft_edge.config.line_config import CurveConfig, LineConfig, Override, read_config
from fbft_edge.config.values import Kind, NamedTables, Place, Table, kinds, read_values
from fbft_edge.errors import ConfigError

DOCS = Path(__file__).parents[3] / "docs"
EXAMPLE = (DOCS / "line.example.toml").read_text(encoding="utf-8")
SMALL = 'bundle = "part.fbft"\n[[cameras]]\nname = "press-1"\nuri = "0"\n'
PASSWORD = "s3cr3t"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "line.toml"


def read(file: Path, text: str) -> LineConfig:
    file.write_text(text, encoding="utf-8")
    return read_config(file)


def refusal(file: Path, text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        read(file, text)
    return str(refused.value)


def camera(line: str) -> str:
    return f'bundle = "part.fbft"\n[[cameras]]\nname = "press-1"\nuri = {line}\n'


# What is read


def test_what_is_not_in_the_file_has_its_default(file: Path) -> None:
    config = read(file, SMALL)
    switches = (config.curve, config.commands, config.trust, config.http, config.recorder, config.drift)
    assert (config.site, config.fps, config.publish.bind) == ("site", 30.0, "tcp://127.0.0.1:5555")
    assert (config.cameras[0].trigger, config.duration_s, switches) == ("free", None, (None,) * 6)


def test_paths_start_from_the_folder_of_the_file(file: Path) -> None:
    tables = (
        '[commands]\nbind = "ipc://run/commands"\n[curve]\nsecret_key = "keys/line.key_secret"\nclients = "/clients"\n'
        '[trust]\nkeys = ["keys/release.pub"]\n'
    )
    config = read(file, SMALL + tables)
    folder = file.parent
    assert config.bundle == folder / "part.fbft"
    assert config.curve == CurveConfig(folder / "keys/line.key_secret", Path("/clients"))
    assert config.commands is not None
    assert config.commands.bind == f"ipc://{folder}/run/commands"
    assert config.trust is not None
    assert config.trust.keys == (folder / "keys/release.pub",)


@pytest.mark.parametrize(
    ("written", "opened"),
    [
        ("0", "0"),
        ("clip.mp4", "{}/clip.mp4"),
        ("/clip.mp4", "/clip.mp4"),
        ("file://clip.mp4?loop=true", "file://{}/clip.mp4?loop=true"),
        ("folder:///images?fps=5", "folder:///images?fps=5"),
        ("synthetic://?fps=30", "synthetic://?fps=30"),
        ("rtsp://10.0.0.7/stream", "rtsp://10.0.0.7/stream"),
        ("gstreamer:videotestsrc ! appsink", "gstreamer:videotestsrc ! appsink"),
    ],
)
def test_a_camera_on_disk_is_found_from_the_folder_of_the_file(file: Path, written: str, opened: str) -> None:
    assert read(file, camera(f'"{written}"')).cameras[0].uri == opened.format(file.parent)


def test_a_folder_with_odd_characters_still_leads_to_the_clip(tmp_path: Path) -> None:
    from fbft_edge.cameras import open_camera
    from fbft_edge.frames.images import write_image
    from fbft_edge.synthetic import render_part

    folder = tmp_path / "hall 3? 50% #1"
    (folder / "images").mkdir(parents=True)
    write_image(folder / "images/part.png", render_part(0, 84, 84).pixels)
    uri = read(folder / "line.toml", camera('"folder://images"')).cameras[0].uri
    assert open_camera(uri).size == (84, 84)


def test_whole_numbers_and_a_byte_order_mark_are_taken(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + f"fps = 5\r\n{SMALL}".encode())
    assert read_config(file).fps == 5.0


# What is refused


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fps = 0", "fps: 0 is out of range; set fps from 0.01 to 1000"),
        ("fps = nan", "fps: nan is out of range"),
        ("fps = -inf", "fps: -inf is out of range"),
        ('fps = "30"', "fps: '30' is text; set fps from 0.01 to 1000"),
        ("fps = true", "fps: true is a truth value"),
        ("fps = [30]", "fps: [...] is an array"),
        ("fps = 2026-11-21", "fps: 2026-11-21 is a date or time"),
        (f"fps = 1{'0' * 999}", "fps: a number of 3319 bits is out of range"),
        (f"fps = 0x{'f' * 9999}", "fps: a number of 39996 bits is out of range"),
        ("duration_s = 0", "duration_s: 0 is out of range; set duration_s above 0, up to 1000000000"),
        ('preview = "yes"', "preview: 'yes' is text; set preview to true or false"),
        ('engine = "cuda"', 'engine: \'cuda\' is none of them; set engine to "auto", "openvino", '),
        ('site = "a/b"', "site: site name 'a/b' cannot stand in a topic; set site to 1 to 64 letters"),
        ('site = ""', "site: site name '' cannot stand in a topic"),
        ("fsp = 30", "fsp: unknown key; did you mean fps?"),
        ('"fps\\n" = 30', "'fps\\n': unknown key; did you mean fps?"),
        ("recorder = 5", "recorder: 5 is a number; write a table [recorder] with folder, max_gib"),
    ],
)
def test_a_line_that_cannot_be_used_is_told_with_its_remedy(file: Path, line: str, words: str) -> None:
    text = refusal(file, f"{line}\n{SMALL}")
    assert text.startswith(f"{file}: {words}")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('trigger = "softwrae"', "cameras[press-1].trigger: 'softwrae' is none of them"),
        ('trigger = "software"', "cameras[press-1].trigger: software needs a command socket, and there is none; add"),
        (
            "frozen_after = 1",
            "cameras[press-1].frozen_after: 1 is out of range; set cameras[press-1].frozen_after",
        ),
        ("wiat = true", "cameras[press-1].wiat: unknown key; did you mean wait?"),
        ('[[cameras]]\nuri = "1"', "cameras[1].name: missing; set cameras[1].name to 1 to 64 letters"),
        ('[[cameras]]\nname = "press-1"\nuri = "1"', "cameras[1].name: the name 'press-1' is taken by number 0"),
        ("[publish]\nbind = 'udp://1'", "publish.bind: 'udp://1' is no endpoint; set publish.bind to an endpoint such"),
        ("[publish]\nbind = 'tcp://127.0.0.1:99999'", "publish.bind: 'tcp://127.0.0.1:99999' is no endpoint"),
        (
            "[publish]\nsite = 'x'",
            "publish.site: unknown key; known here: bind, insecure; keys of the line stand",
        ),
        ("[commands]", "commands.bind: missing; set commands.bind to an endpoint such as"),
        ("[commands]\nbind = 'tcp://127.0.0.1:5555'", "commands.bind: tcp://127.0.0.1:5555 is publish.bind, too; give"),
        ("[trust]\nkeys = []", "trust.keys: [...] has 0 elements"),
        ("[trust]\nkeys = ['a', 5]", "trust.keys[1]: 5 is a number; set trust.keys[1] to the path of a file"),
        ("[http]\nbind = '9090'", "http.bind: '9090' is no address and port; set http.bind to ADDRESS:PORT such as"),
        ("[http]\nbind = 'line.local:9090'", "http.bind: 'line.local:9090' is no address and port"),
        ("[recorder]\nfolder = 'x'\nmax_gib = 0", "recorder.max_gib: 0 is out of range; set recorder.max_gib above 0"),
        ("[drift]\nwindow = 200.5", "drift.window: 200.5 is a number; set drift.window to a whole number from 20"),
    ],
)
def test_a_table_that_cannot_be_used_is_told_with_its_dotted_key(file: Path, lines: str, words: str) -> None:
    assert refusal(file, f"{SMALL}{lines}\n").startswith(f"{file}: {words}")


@pytest.mark.parametrize("cameras", ["cameras = []", "", "cameras = {name = 'a', uri = '0'}", "cameras = 3"])
def test_a_line_without_cameras_is_told_how_to_write_one(file: Path, cameras: str) -> None:
    text = refusal(file, f'bundle = "part.fbft"\n{cameras}')
    assert re.search(r"cameras: .*; write 1 to 64 tables \[\[cameras\]\], each with name and uri$", text)


def test_all_problems_are_told_at_once_one_line_each(file: Path) -> None:
    text = refusal(file, "fps = 0\nsiet = 'x'\n[[cameras]]\nname = 'a b'\nwait = 1\n[publish]\nbind = 5\n")
    first, *lines = text.splitlines()
    named = ("bundle", "cameras[0].name", "cameras[0].uri", "cameras[0].wait", "fps", "publish.bind", "siet")
    assert (first, sorted(line.split(": ")[1] for line in lines)) == ("7 problems", list(named))


def test_a_flood_of_problems_is_cut_short(file: Path) -> None:
    text = refusal(file, "".join(f"key_{number} = 1\n" for number in range(40_000)) + SMALL)
    assert len(text.splitlines()) < 60


# The file itself


def unreadable_files(folder: Path) -> Iterator[tuple[str, Path, str]]:
    file = folder / "line.toml"
    yield "missing", file, "cannot be read: No such file"
    yield "folder", folder, "irectory"
    file.symlink_to(file)
    yield "loop", file, "symbolic links"
    file.unlink()
    os.mkfifo(file)
    yield "fifo", file, "not a regular file"
    file.unlink()
    yield "under a file", Path("/dev/null/line.toml"), "Not a directory"
    yield "long name", folder / ("x" * 300), "File name too long"
    yield "device", Path("/dev/zero"), "not a regular file"


def test_what_is_no_file_is_told_in_one_line(tmp_path: Path) -> None:
    for case, path, words in unreadable_files(tmp_path):
        with pytest.raises(ConfigError) as refused:
            read_config(path)
        assert (words in str(refused.value), str(path) in str(refused.value)) == (True, True), case


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"site = 'caf\xe9'", "not UTF-8 (line 1, byte 11); save it as UTF-8"),
        (b"a = 1\n\xff\xfe", "not UTF-8 (line 2"),
        (b"#" * (1 << 16) + b"\n", "65537 bytes, at most 65536"),
        (b"\n" + b"a." * 5000 + b"a = 1", "line 2 has 5000 dots, at most 128 are read; write it on several lines"),
        (b"fps = \n", "not TOML: Invalid value (at line 1"),
        (b"fps = 1\nfps = 2\n", "not TOML: Cannot overwrite a value (at line 2"),
        (b"a = " + b"[" * 50_000, "not TOML: it is nested too deeply"),
        (b"a = 1" + b"0" * 10_000, "not TOML: "),
        (b"a = 1\0", "not TOML: "),
    ],
)
def test_contents_that_are_not_toml_are_told_in_one_line(file: Path, contents: bytes, words: str) -> None:
    file.write_bytes(contents)
    with pytest.raises(ConfigError) as refused:
        read_config(file)
    text = str(refused.value)
    assert (text.startswith(f"{file}: "), words in text, "\n" in text) == (True, True, False)


def test_a_file_without_permission_is_told(file: Path) -> None:
    file.touch(0o000)
    user = os.geteuid()
    if user == 0:  # who may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match="Permission denied"):
            read_config(file)
    finally:
        os.seteuid(user)


# Passwords


@pytest.mark.parametrize(
    "line",
    [
        f'uri = "rtsp://line:{PASSWORD}/1@host/stream"',
        f'uri = "rtsp://line:1/{PASSWORD}@host/stream"',
        f'uri = "rtsp://line:{PASSWORD}#@host/stream"',
        f'uri = "rtsp://line:{PASSWORD}@/stream"',
        f'uri = "rtsp://line:{PASSWORD}@host:port/stream"',
        f'uri = "rtsp://line:{PASSWORD}@host/\\n"',
        f'uri = "rtsp://line:{PASSWORD}@host/${{env:LINE_PASSWORD}}"',
        f'uri = "rtsp://line:{PASSWORD}${{@host/"',
        f'uri = "rtsp://line:${{{PASSWORD}}}@host/"',
        'uri = "rtsp://host/${env:LINE_PASSWORD}"',
        'uri = "rtsp://line:${env:LINE_PASSWORD}@host/stream@2"',
        f'uri = "0"\nurl = "rtsp://line:{PASSWORD}@host/stream"',
        f'uri = "0"\ntrigger = "rtsp://line:{PASSWORD}/1@host/stream"',
        f'uri = ["rtsp://line:{PASSWORD}@host/stream"]',
        f'uri = "rtsp://line:{PASSWORD}@host/"stream"',
    ],
)
def test_no_refusal_shows_a_password(file: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setenv("LINE_PASSWORD", PASSWORD)
    text = refusal(file, f'bundle = "part.fbft"\n[[cameras]]\nname = "press-1"\n{line}\n')
    assert (PASSWORD in text, str(file) in text) == (False, True)


def test_the_configuration_shows_no_password(file: Path) -> None:
    config = read(file, camera(f'"rtsp://line:{PASSWORD}@host/stream"'))
    assert (PASSWORD in config.cameras[0].uri, PASSWORD in repr(config)) == (True, False)


def test_a_secret_comes_from_the_environment_or_a_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINE_USER", "line@hall")
    secret = file.with_name("press-1.password")
    secret.write_text("a/b#c%\n")
    secret.chmod(0o600)
    uri = read(file, camera('"rtsp://${env:LINE_USER}:${file:press-1.password}@host/stream"')).cameras[0].uri
    assert uri == "rtsp://line%40hall:a%2Fb%23c%25@host/stream"


def test_the_camera_is_sent_the_password_as_it_was_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import base64
    import socket
    import threading

    from fbft_edge.cameras import open_camera
    from fbft_edge.errors import CameraError

    requests: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)

        def serve() -> None:
            client, _ = server.accept()
            client.settimeout(30)
            with client, client.makefile("rwb") as stream:
                while request := b"".join(iter(stream.readline, b"\r\n")).decode():
                    requests.append(request)
                    number = re.search(r"CSeq: (\d+)", request)
                    if "Authorization" in request or number is None:
                        return
                    head = f"RTSP/1.0 401 Unauthorized\r\nCSeq: {number[1]}\r\n"
                    stream.write(f'{head}WWW-Authenticate: Basic realm="line"\r\n\r\n'.encode())
                    stream.flush()

        thread = threading.Thread(target=serve)
        thread.start()
        monkeypatch.setenv("LINE_PASSWORD", "a/b@c%41 :ü")
        uri = f"rtsp://line:${{env:LINE_PASSWORD}}@127.0.0.1:{server.getsockname()[1]}/stream"
        with pytest.raises(CameraError):
            open_camera(read(file, camera(f'"{uri}"')).cameras[0].uri)
        thread.join(30)
    sent = re.search(r"Authorization: Basic (\S+)", requests[-1])
    assert sent is not None
    assert base64.b64decode(sent[1]).decode() == "line:a/b@c%41 :ü"


@pytest.mark.parametrize(
    ("reference", "contents", "mode", "words"),
    [
        ("${env:NO_SUCH}", "", 0o600, "environment variable NO_SUCH is not set; set it for the service, or use"),
        ("${env:EMPTY}", "", 0o600, "environment variable EMPTY is empty"),
        ("${env:LINES}", "", 0o600, "environment variable LINES holds line breaks"),
        ("${file:pw}", "x", 0o644, "may be read or changed by others (mode 0644); chmod 600"),
        ("${file:pw}", "x", 0o620, "may be read or changed by others (mode 0620)"),
        ("${file:pw}", "", 0o600, "is empty; write the password there"),
        ("${file:pw}", "x\ny", 0o600, "holds line breaks"),
        ("${file:pw}", "x" * 5000, 0o600, "5000 bytes, at most 4096"),
        ("${file:none}", "", 0o600, "No such file or directory"),
        ("${file:.}", "", 0o600, "irectory"),
        ("${vault:x}", "", 0o600, "is not understood; write ${env:NAME} or ${file:PATH}"),
        ("${env:}", "", 0o600, "is not understood"),
        ("${env:X", "", 0o600, "is not closed"),
    ],
)
def test_a_secret_that_cannot_be_had_is_told(
    file: Path, monkeypatch: pytest.MonkeyPatch, reference: str, contents: str, mode: int, words: str
) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("LINES", "a\nb")
    secret = file.with_name("pw")
    secret.write_text(contents)
    secret.chmod(mode)
    text = refusal(file, camera(f'"rtsp://line:{reference}@host/"'))
    assert (text.startswith(f"{file}: cameras[press-1].uri: "), words in text, "; " in text) == (True, True, True)


# Options of the command line


def test_options_win_over_the_file_and_start_from_the_working_directory(file: Path) -> None:
    file.write_text(f"fps = 5\n{SMALL}[publish]\ninsecure = true\n")
    options = [
        Override("fps", 9.0, "--fps"),
        Override("bundle", "other.fbft", "--bundle"),
        Override("publish.bind", "ipc://results", "--bind"),
    ]
    config = read_config(file, options)
    assert (config.fps, config.bundle, config.publish.bind) == (9.0, Path("other.fbft"), "ipc://results")
    assert config.publish.insecure


def test_a_problem_of_an_option_names_the_option(file: Path) -> None:
    file.write_text(f"fps = 0\n{SMALL}")
    options = [Override("fps", 0.0, "--fps"), Override("publish.bind", "x", "--bind")]
    with pytest.raises(ConfigError) as refused:
        read_config(file, options)
    assert re.findall(r"^  (\S+):", str(refused.value), re.MULTILINE) == ["--fps", "--bind"]


def test_an_option_does_not_hide_a_table_that_is_none(file: Path) -> None:
    file.write_text(f"publish = 5\n{SMALL}")
    with pytest.raises(ConfigError, match="publish: 5 is a number"):
        read_config(file, [Override("publish.bind", "ipc://x", "--bind")])


# Whatever stands there

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["${env:X}", "0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def tables(section: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Tables with the section's own keys, whose values are anything, or tables in turn."""

    def of(kind: Kind) -> st.SearchStrategy[Any]:
        if isinstance(kind, NamedTables):
            return VALUES | st.lists(tables(kind.section), max_size=3)
        return VALUES | tables(kind.section) if isinstance(kind, Table) else VALUES

    return st.fixed_dictionaries({}, optional={name: of(kind) for name, kind in kinds(section).items()})


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables(LineConfig))
def test_every_table_is_read_or_refused_in_whole_lines(contents: dict[str, Any]) -> None:
    values, problems = read_values(LineConfig, contents, Place("line.toml"))
    assert all(re.fullmatch(r"line\.toml: .+: .+; .+", problem) for problem in problems)
    assert problems or LineConfig(**values)


# The page and the example


def rows(section: type[Any], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Dotted key, default, what is allowed, meaning."""
    for item, kind in zip(fields(section), kinds(section).values(), strict=True):
        name = f"{prefix}{item.name}"
        if isinstance(kind, NamedTables):
            yield f"[[{name}]]", "required", "1 to 64 tables", kind.about
            yield from rows(kind.section, f"{name}.")
        elif isinstance(kind, Table):
            yield f"[{name}]", "off" if item.default is None else "on", "a table", kind.about
            yield from rows(kind.section, f"{name}.")
        else:
            yield name, default_text(item.default), kind.allowed, kind.about


def default_text(default: Any) -> str:
    if default is MISSING:
        return "required"
    if default is None:
        return "none"
    return str(default).lower() if isinstance(default, bool) else f"`{default}`"


def test_the_page_has_the_table_of_all_keys() -> None:
    lines = [f"| `{key}` | {default} | {allowed} | {about} |" for key, default, allowed, about in rows(LineConfig)]
    table = "\n".join(("| key | default | allowed | meaning |", "| --- | --- | --- | --- |", *lines))
    assert table in (DOCS / "configuration.md").read_text(encoding="utf-8"), f"put this into the page:\n{table}"


def test_the_example_has_every_key_and_every_one_can_be_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESS_1_PASSWORD", PASSWORD)
    table, shown = "", set()
    for line in EXAMPLE.splitlines():
        if found := re.match(r"\[+([a-z]+)\]+", line):
            table = f"{found[1]}."
        elif found := re.match(r"(?:# )?(\w+) = ", line):
            shown.add(table + found[1])
    config = read(file, re.sub(r"^# (\w+ = )", r"\1", EXAMPLE, flags=re.MULTILINE))
    assert shown == {key for key, *_ in rows(LineConfig) if not key.startswith("[")}
    assert config == replace(read(file, EXAMPLE), duration_s=60.0)


@pytest.mark.parametrize("uri", ["rtsp://10.0.0.7/live", "rtsps://10.0.0.7/live", "gstreamer:v4l2src", "csi://0"])
def test_a_software_trigger_needs_the_latency_of_a_source_that_cannot_be_dated(file: Path, uri: str) -> None:
    text = refusal(file, software_triggered(uri))
    assert "cameras[press-1].latency_s: missing, and trigger is software" in text
    assert "set latency_s to the longest, such as 0.3" in text


@pytest.mark.parametrize(
    ("uri", "lines"), [("rtsp://10.0.0.7/live", "latency_s = 0.3"), ("0", ""), ("gige://1?trigger=software", "")]
)
def test_a_software_trigger_asks_no_more_of_a_source_that_is_dated(file: Path, uri: str, lines: str) -> None:
    file.write_text(software_triggered(uri, lines))
    assert read_config(file).cameras[0].latency_s == (0.3 if lines else None)


def test_a_latency_that_no_trigger_survives_is_refused(file: Path) -> None:
    text = refusal(file, software_triggered("rtsp://10.0.0.7/live", "latency_s = 1.0"))
    assert "latency_s: 1 is not below trigger_timeout_s (1); raise trigger_timeout_s" in text


def software_triggered(uri: str, lines: str = "") -> str:
    return f'''bundle = "part.fbft"
[[cameras]]
name = "press-1"
uri = "{uri}"
trigger = "software"
{lines}
[commands]
bind = "ipc:///run/commands"
'''
