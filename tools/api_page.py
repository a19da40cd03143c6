"""The public names of the three packages in, docs/api.md out: signature and docstring of each.

    python tools/api_page.py    # writes the page; a test says when it is not current

Reads sources and imports nothing of them, so that it needs no extra. Knows nothing about what the names do.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
FOLDERS = {"fbft_edge": "edge", "fbft_export": "export", "fbft_calibration": "calibration"}

# What a reader comes for, in the order of the page; a test holds these names to each package's `__all__`.
SECTIONS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "fbft_edge": {
        "Read results": ("ResultSubscriber", "Result", "Verdict", "Region", "Health", "decode_message"),
        "Inspect pictures": ("Inspector", "Detection", "read_image", "open_bundle", "Bundle", "Thresholds"),
        "Run a line, and command it": ("read_config", "LineConfig", "run_line", "CommandClient"),
        "Extend it": ("Camera", "Detector", "Observer", "Published", "Frame", "PixelFormat"),
        "Errors": ("FbftError",),
    },
    "fbft_export": {"Make engines": ("export_openvino", "export_tensorrt")},
    "fbft_calibration": {
        "Fit a bundle": ("fit_bundle", "BundleSettings", "threshold_bundle"),
        "Benchmark": ("run_benchmark",),
    },
}
TOP = """# Python

Everything that is not on this page is private by convention, and may change in any version.

`tools/api_page.py` writes this page from the sources. Arrays are NumPy's: `Uint8`, `Float32` and `Bool` are
`numpy.ndarray` of that type, `Pixels` is `Uint8` or of `uint16`. Whatever a caller can act on is raised as an
`FbftError`."""
_SECTION_NAMES = ("Args", "Attributes", "Returns", "Raises")


@dataclass(frozen=True, slots=True)
class Definition:
    """A public name where it is defined."""

    name: str
    node: ast.ClassDef | ast.FunctionDef


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page."""
    argparse.ArgumentParser("api_page", description="Write docs/api.md from the public names.").parse_args(argv)
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page, Markdown."""
    return "\n\n".join([TOP, *(part for package in SECTIONS for part in _package(package))]) + "\n"


def shown(package: str) -> list[str]:
    """Names of a package that the page shows, in order."""
    return [name for names in SECTIONS[package].values() for name in names]


def homes(package: str) -> dict[str, str]:
    """Where each public name of a package is defined, as its `__init__` has it: module by name."""
    tree = _tree(ROOT / FOLDERS[package] / package / "__init__.py")
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            return dict(ast.literal_eval(node.value))
    raise LookupError(f"{package} has no _HOMES")


def definition(package: str, name: str) -> Definition:
    """A public name where it is defined."""
    module = ROOT / FOLDERS[package] / package / homes(package)[name].replace(".", "/")
    file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    for node in _tree(file).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return Definition(name, node)
    raise LookupError(f"{file} does not define {name}")


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _package(package: str) -> Iterator[str]:
    yield f"## {package}"
    about = ast.get_docstring(_tree(ROOT / FOLDERS[package] / package / "__init__.py")) or ""
    yield _with_blocks(about)
    for title, names in SECTIONS[package].items():
        yield f"### {title}"
        for name in names:
            yield from _entry(definition(package, name))


def _entry(definition: Definition) -> Iterator[str]:
    node = definition.node
    yield f"#### {definition.name}"
    if isinstance(node, ast.FunctionDef):
        yield _fenced(_signature(node))
        yield _prose(node)
        return
    yield _fenced(_class_signature(node))
    yield _prose(node)
    if definition.name == "FbftError":
        yield _fenced(_tree_of_errors())
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
            yield _member(member)


def _member(node: ast.FunctionDef) -> str:
    is_property = any(ast.unparse(each) == "property" for each in node.decorator_list)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    heading = f"{node.name}{returns}" if is_property else _signature(node)
    return f"##### {node.name}\n\n{_fenced(heading)}\n\n{_prose(node)}"


def _signature(node: ast.FunctionDef) -> str:
    """Name, arguments without `self`, and what is returned; on several lines where one is too long."""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return _wrapped(node.name, list(_arguments(node.args)), returns)


def _arguments(arguments: ast.arguments) -> Iterator[str]:
    """Each argument with type and default; `*` before those that are given by name only."""
    positional = [each for each in arguments.args if each.arg != "self"]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    yield from map(_argument, positional, defaults)
    if arguments.kwonlyargs:
        yield "*"
    yield from map(_argument, arguments.kwonlyargs, arguments.kw_defaults)
    if arguments.kwarg is not None:
        yield f"**{_argument(arguments.kwarg, None)}"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    annotation = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    return f"{argument.arg}{annotation}" + (f" = {ast.unparse(default)}" if default is not None else "")


def _class_signature(node: ast.ClassDef) -> str:
    bases = {ast.unparse(base) for base in node.bases}
    if "Enum" in bases:
        values = [each for each in node.body if isinstance(each, ast.Assign)]
        return "\n".join([f"class {node.name}(Enum)", *(f"    {ast.unparse(each)}" for each in values)])
    if "Protocol" in bases:
        return f"class {node.name}(Protocol)"
    made = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    if made is not None:
        return "class " + _signature(made).removesuffix(" -> None").replace("__init__", node.name, 1)
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    return _wrapped(f"class {node.name}", [_field(each) for each in fields], "") if fields else f"class {node.name}"


def _field(node: ast.AnnAssign) -> str:
    """A field of a data class; of `Annotated` types, which say more to a machine, the type alone."""
    annotation = node.annotation
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        annotation = annotation.slice.elts[0] if isinstance(annotation.slice, ast.Tuple) else annotation.slice
    default = f" = {ast.unparse(node.value)}" if node.value is not None else ""
    return f"{ast.unparse(node.target)}: {ast.unparse(annotation)}{default}"


def _wrapped(name: str, parts: Sequence[str], returns: str) -> str:
    line = f"{name}({', '.join(parts)}){returns}"
    return line if len(line) <= 100 else "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){returns}"])


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```"


def _prose(node: ast.ClassDef | ast.FunctionDef) -> str:
    """A docstring as Markdown: its sections become lists."""
    lines: list[str] = []
    is_listed = False
    for line in inspect.cleandoc(ast.get_docstring(node) or "").splitlines():
        if line.rstrip(":") in _SECTION_NAMES:
            is_listed = True
            lines += [f"**{line.rstrip(':')}**", ""]
        elif not is_listed or not line:
            lines.append(line)
        elif line.startswith(" " * 8):  # goes on
            lines.append(f"  {line.strip()}")
        else:
            lines.append(_item(line.strip()))
    return _with_blocks("\n".join(lines)).strip()


def _item(line: str) -> str:
    """An argument, an attribute or an error with what is said of it; what is returned has no name."""
    named = re.match(r"(\*{0,2}\w+): (.*)", line)
    return f"- `{named[1]}`: {named[2]}" if named else line


def _with_blocks(text: str) -> str:
    """Text whose indented paragraphs of Python, as docstrings have them, are fenced."""

    def fenced(match: re.Match[str]) -> str:
        code = inspect.cleandoc(match[1])
        return f"\n```python\n{code}\n```\n"

    return re.sub(r"\n((?:    (?:from|import) .*\n)(?:(?:    .*)?\n)*(?:    .*(?:\n|$)))", fenced, text)


def _tree_of_errors() -> str:
    tree = ast.get_docstring(_tree(ROOT / "edge" / "fbft_edge" / "errors.py")) or ""
    return "\n".join(line for line in tree.splitlines() if line.startswith(("FbftError", "├", "└", "│")))


if __name__ == "__main__":
    main()
