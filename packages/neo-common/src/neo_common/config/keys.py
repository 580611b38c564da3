"""From the sections to the keys of the file, and back: names, types, bounds, defaults. Pure."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from neo_common.config.sections import About, Admin, Config, Master, Storage
from neo_common.config.values import (
    Written,
    format_bytes,
    format_seconds,
    parse_address,
    parse_bool,
    parse_bytes,
    parse_int,
    parse_seconds,
)

NODE_SECTIONS: Final[dict[str, type[Master | Storage | Admin]]] = {
    "masters": Master,
    "storages": Storage,
    "admins": Admin,
}
"""The sections whose keys are the names of nodes."""
_SUFFIX: Final = {Written.SECONDS: "_s", Written.BYTES: "_bytes"}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of one section."""

    name: str
    """As in the file."""
    field: str
    """As in the dataclass: with its unit."""
    type: Any
    """bool, int, float, str, a Literal, or the dataclass of a section inside. (Any: what a type is has no type.)"""
    written: Written | None
    about: About
    default: Any
    """MISSING when the file must have it. (Any: of that type.)"""

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is MISSING

    @property
    def is_section(self) -> bool:
        """Whether the value is a mapping with keys of its own."""
        return is_dataclass(self.type)

    @property
    def choices(self) -> tuple[str, ...]:
        """The only texts allowed; empty when it is no Literal."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    def parse(self, text: str) -> bool | int | float | str:
        """Return the value that *text* means. Raises ValueError: what is wrong, and what would be right."""
        if self.choices:
            for choice in self.choices:
                if choice.lower() == text.strip().lower():
                    return choice
            raise ValueError(f"is unknown, write {' or '.join(self.choices)}")
        value: bool | int | float | str
        if self.written is Written.SECONDS:
            value = parse_seconds(text)
        elif self.written is Written.BYTES:
            value = parse_bytes(text)
        elif self.written is Written.ADDRESS:
            return parse_address(text)
        elif self.type is bool:
            return parse_bool(text)
        elif self.type is int:
            value = parse_int(text)
        else:
            return text
        if self.about.low is not None and value < self.about.low:
            raise ValueError(f"is too small, the least is {self.text(self.about.low)}")
        if self.about.high is not None and value > self.about.high:
            raise ValueError(f"is too large, the most is {self.text(self.about.high)}")
        return value

    def text(self, value: object) -> str:
        """Return *value* as it would be written in the file."""
        if self.written is Written.SECONDS:
            assert isinstance(value, int | float)
            return format_seconds(value)
        if self.written is Written.BYTES:
            assert isinstance(value, int)
            return format_bytes(value)
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value)


def keys_of(section: type) -> Mapping[str, Key]:
    """Return the keys of *section* by their names in the file, in the order of the dataclass.

    >>> from neo_common.config.sections import Timeouts
    >>> keys_of(Timeouts)["lease"].field
    'lease_s'
    """
    found = _known.get(section)
    if found is None:
        found = _known[section] = MappingProxyType(_read(section))
    return found


_known: Final[dict[type, Mapping[str, Key]]] = {}
"""To look through annotations takes longer than to read a file with all keys."""


def _read(section: type) -> dict[str, Key]:
    hints = get_type_hints(section, include_extras=True)
    found = {}
    for item in fields(section):
        if not item.metadata.get("is_key", True):
            continue
        kind, *extras = _unwrapped(hints[item.name])
        written = next((e for e in extras if isinstance(e, Written)), None)
        doc = next((line for line in (kind.__doc__ or "").splitlines()), "") if is_dataclass(kind) else ""
        about = next((e for e in extras if isinstance(e, About)), About(doc))
        suffix = _SUFFIX.get(written, "") if written else ""
        assert item.name.endswith(suffix), f"{section.__name__}.{item.name} is written as a {written}"
        name = item.name.removesuffix(suffix)
        found[name] = Key(name, item.name, kind, written, about, item.default)
    return found


def shown(config: Config) -> dict[str, Any]:
    """Return the whole configuration as the file would say it, defaults included: nested dicts of plain values.

    (Any: what YAML and JSON can hold.) Durations and sizes are texts with their unit, paths are absolute.
    """
    tree: dict[str, Any] = {}
    for name, key in keys_of(Config).items():
        value = getattr(config, key.field)
        if name in NODE_SECTIONS:
            tree[name] = {node: _shown(entry) for node, entry in value.items()}
        else:
            tree[name] = _shown(value)
    return tree


def _shown(section: object) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, key in keys_of(type(section)).items():
        value = getattr(section, key.field)
        tree[name] = _shown(value) if key.is_section else key.text(value) if key.written else value
    return tree


def _unwrapped(hint: Any) -> tuple[Any, ...]:
    """Return a type and the extras of its Annotated, if it is one."""
    return (hint.__origin__, *hint.__metadata__) if hasattr(hint, "__metadata__") else (hint,)
