"""From a YAML file, the environment and the command line to a `Config`, or to every error at once.

Later sources win: the defaults of `sections`, the file, the environment, `--set`. All of them use the same names:

    timeouts:                  NEO_TIMEOUTS_LEASE=5s            --set timeouts.lease=5s
      lease: 5s
    storages:                  NEO_STORAGES_S1_LOG_PATH=/ssd    --set storages.s1.log.path=/ssd
      s1: {log: {path: /ssd}}

A variable is `NEO_`, then the keys joined by `_`, in capitals, with `-` as `_`. It can change a node but not add one;
`--set` can do both. The environment is a mapping that the caller passes: nothing here looks at the process.

Values are read as text whatever YAML makes of them (so `10:30` is never a number in base 60) and parsed by the key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from neo_common.config.keys import NODE_SECTIONS, Key, keys_of
from neo_common.config.rules import NODE_NAME_RULE, broken_rules, is_node_name
from neo_common.config.sections import Admin, Config, Master, Storage
from neo_common.config.values import Written
from neo_common.errors import ConfigError


class Problem(NamedTuple):
    """One thing that is wrong. `line` is 0 when it is not in the file; `source` is then the variable or option."""

    source: str
    line: int
    key: str
    what: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        return f"{place}: {self.key}: {self.what}" if self.key else f"{place}: {self.what}"


class ConfigProblems(ConfigError):
    """Every problem of a configuration, in the order of the file. The text has one per line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class _Place(NamedTuple):
    source: str
    line: int


@dataclass(slots=True)
class _Item:
    """A part of the file: text, a mapping, or nothing after a colon."""

    place: _Place
    value: "str | dict[str, _Item] | None"
    is_wrong: bool = False
    """It was something else, and was reported when it was read."""


def load(path: str | Path, environ: Mapping[str, str] | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read the configuration of a cluster.

    *environ*: usually `os.environ`, passed by `__main__`. *overrides*: texts `section.key=value`, as given to `--set`.
    Raises: ConfigProblems with everything that is wrong, one line each: file, line, key, what, and what would be right.
    """
    return _Loader(Path(path)).load(environ or {}, overrides)


class _Loader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._base = path.resolve().parent
        self._problems: list[Problem] = []
        self._places: dict[str, _Place] = {}
        """Dotted key to where it was given, for the rules that are checked last."""

    def load(self, environ: Mapping[str, str], overrides: Sequence[str]) -> Config:
        root = self._read()
        if root is not None:
            for text in overrides:
                self._override(root, text)
            self._from_environment(root, environ, {text.partition("=")[0] for text in overrides})
            config = self._config(root)
            if config is not None and not self._problems:
                for key, what in broken_rules(config):
                    self._report(self._place(key), key, what)
            if config is not None and not self._problems:
                return config
        raise ConfigProblems(sorted(self._problems, key=lambda p: (p.line == 0, p.line)))

    def _report(self, place: _Place, key: str, what: str) -> None:
        self._problems.append(Problem(place.source, place.line, key, what))

    def _place(self, key: str) -> _Place:
        """Return where *key* was given, or the section around it."""
        while key not in self._places and "." in key:
            key = key.rpartition(".")[0]
        return self._places.get(key, _Place(str(self._path), 1))

    # ------------------------------------------------------------------------------------ the file

    def _read(self) -> _Item | None:
        top = _Place(str(self._path), 0)
        try:
            text = self._path.read_bytes()
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except OSError as error:
            self._report(top, "", f"cannot be read: {error.strerror}; give the file with --config or NEO_CONFIG")
            return None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 0
            self._report(_Place(str(self._path), line), "", f"is not YAML: {error.problem or error.context}")
            return None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            self._report(top, "", f"is not YAML: {error}")
            return None
        if node is None:
            self._report(top, "", "is empty; config/neo.yaml in the source has every key")
            return None
        item = self._item(node, "")
        if not isinstance(item.value, dict):
            self._report(item.place, "", "must be a mapping of sections: `cluster:`, `masters:`, `storages:`...")
            return None
        return item

    def _item(self, node: yaml.Node, key: str) -> _Item:
        place = _Place(str(self._path), node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            is_null = node.tag == "tag:yaml.org,2002:null"
            return _Item(place, None if is_null else node.value)
        if not isinstance(node, yaml.MappingNode):
            self._report(place, key, "is a list, but a mapping or a single value belongs here")
            return _Item(place, None, is_wrong=True)
        entries: dict[str, _Item] = {}
        for name_node, value_node in node.value:
            where = _Place(str(self._path), name_node.start_mark.line + 1)
            if not isinstance(name_node, yaml.ScalarNode):
                self._report(where, key, "has a key that is not a word")
                continue
            name = name_node.value
            dotted = f"{key}.{name}" if key else name
            if name in entries:
                self._report(where, dotted, f"is given twice, first in line {entries[name].place.line}: remove one")
                continue
            entry = self._item(value_node, dotted)
            entries[name] = replace(entry, place=where)
        return _Item(place, entries)

    # ------------------------------------------------------------------------------------ overrides

    def _override(self, root: _Item, text: str) -> None:
        place = _Place(f"--set {text}", 0)
        dotted, equals, value = text.partition("=")
        if not equals or not all(dotted.split(".")):
            self._report(place, "", "write --set section.key=value")
            return
        self._put(root, dotted.split("."), value, place)

    def _put(self, root: _Item, names: Sequence[str], value: str, place: _Place) -> None:
        item = root
        for name in names[:-1]:
            assert isinstance(item.value, dict)
            item = item.value.setdefault(name, _Item(place, {}))
            if item.value is None:
                item.value = {}
            if not isinstance(item.value, dict):
                self._report(place, ".".join(names), f"{name} is a single value, it has no keys")
                return
        assert isinstance(item.value, dict)
        item.value[names[-1]] = _Item(place, value)

    def _from_environment(self, root: _Item, environ: Mapping[str, str], overridden: set[str]) -> None:
        assert isinstance(root.value, dict)
        known: dict[str, tuple[str, ...]] = {}
        for section, key in keys_of(Config).items():
            if section not in NODE_SECTIONS:
                known.update(_variables((section,), key.type))
                continue
            nodes = root.value.get(section)
            for node in nodes.value if nodes and isinstance(nodes.value, dict) else ():
                known.update(_variables((section, node), NODE_SECTIONS[section]))
        prefixes = tuple(f"NEO_{section.upper()}_" for section in keys_of(Config))
        for variable in sorted(environ):
            names = known.get(variable)
            if names is None and variable.startswith(prefixes):
                hint = _did_you_mean(variable, known)
                self._report(_Place(f"environment {variable}", 0), "", f"is not the name of a key{hint}")
            elif names is not None and ".".join(names) not in overridden:
                self._put(root, names, environ[variable], _Place(f"environment {variable}", 0))

    # ------------------------------------------------------------------------------------ sections

    def _config(self, root: _Item) -> Config | None:
        assert isinstance(root.value, dict)
        found: dict[str, Any] = {}
        sections = keys_of(Config)
        self._unknown(root.value, sections, "")
        for name, key in sections.items():
            item = root.value.get(name)
            self._note(name, item)
            if name in NODE_SECTIONS:
                found[name] = self._nodes(name, item)
            elif item is None and not key.is_required:
                found[name] = self._section(key.type, _Item(_Place(str(self._path), 1), None), name)
            elif item is None:
                self._report(_Place(str(self._path), 1), name, f"is missing, add `{name}:` with its keys")
            else:
                found[name] = self._section(key.type, item, name)
        if self._problems:
            return None
        return Config(path=str(self._path.resolve()), **found)

    def _nodes(self, section: str, item: _Item | None) -> dict[str, Master | Storage | Admin]:
        nodes: dict[str, Master | Storage | Admin] = {}
        if item is None or item.value is None:
            return nodes
        if not isinstance(item.value, dict):
            self._report(item.place, section, "must be a mapping of names: `name: {address: host:port}`")
            return nodes
        for name, entry in item.value.items():
            dotted = f"{section}.{name}"
            self._note(dotted, entry)
            if not is_node_name(name):
                self._report(entry.place, dotted, f"cannot be the name of a node, use {NODE_NAME_RULE}")
                continue
            node = self._section(NODE_SECTIONS[section], entry, dotted, name=name)
            if node is None:
                continue
            digits = name[len(name.rstrip("0123456789")) :]
            if not node.number and not int(digits or "0"):
                self._report(entry.place, dotted, "has no number: add `number: 1`, or end its name with digits")
            elif not node.number and int(digits) >= 2**24:
                self._report(entry.place, dotted, f"has too large a number, {digits}: add `number:`")
            else:
                nodes[name] = self._placed(replace(node, number=node.number or int(digits)))
        return nodes

    def _placed(self, node: Master | Storage | Admin) -> Master | Storage | Admin:
        """Return *node* with its directory absolute, and the paths of a storage below it."""
        if isinstance(node, Master):
            return replace(node, directory=str(self._base / (node.directory or node.name)))
        if not isinstance(node, Storage):
            return node
        directory = self._base / (node.directory or node.name)
        database = node.database
        return replace(
            node,
            directory=str(directory),
            database=replace(
                database,
                path=str(directory / database.path),
                password_file=self._beside(database.password_file),
                tls_ca=self._beside(database.tls_ca),
                tls_certificate=self._beside(database.tls_certificate),
                tls_key=self._beside(database.tls_key),
                socket=self._beside(database.socket),
                server_directory=self._beside(database.server_directory)
                or (str(directory / "mariadb") if database.managed else ""),
            ),
            log=replace(node.log, path=str(directory / node.log.path)),
        )

    def _beside(self, path: str) -> str:
        """Return *path*, if there is one, as it is beside the file."""
        return path and str(self._base / path)

    def _section(self, cls: type, item: _Item, dotted: str, **given: str) -> Any:
        """Return an object of *cls*, or None after reporting. (Any: of that class.)"""
        entries = {} if item.value is None else item.value
        if not isinstance(entries, dict):
            self._report(item.place, dotted, f"is {entries!r}, but must be a mapping of keys")
            return None
        keys = keys_of(cls)
        before = len(self._problems)
        self._unknown(entries, keys, dotted)
        found: dict[str, Any] = dict(given)
        for name, key in keys.items():
            entry = entries.get(name)
            self._note(f"{dotted}.{name}", entry)
            if entry is None and not key.is_required:
                continue
            if entry is None:
                self._report(item.place, f"{dotted}.{name}", f"is missing: {key.about.text}")
            elif key.is_section:
                found[key.field] = self._section(key.type, entry, f"{dotted}.{name}")
            else:
                self._value(key, entry, f"{dotted}.{name}", found)
        if len(self._problems) > before:
            return None
        self._resolve(cls, keys, found)
        return cls(**found)

    def _resolve(self, cls: type, keys: Mapping[str, Key], found: dict[str, Any]) -> None:
        """Make the paths of sections that stand beside the file absolute; those of a node wait for its directory."""
        if cls is Master or _is_of_storage(cls):
            return
        for key in keys.values():
            value = found.get(key.field, key.default)
            if key.written is Written.PATH and value:
                found[key.field] = str(self._base / value)

    def _value(self, key: Key, entry: _Item, dotted: str, found: dict[str, Any]) -> None:
        if entry.is_wrong:
            return
        if isinstance(entry.value, dict):
            self._report(entry.place, dotted, "is a mapping, but must be a single value")
        elif entry.value is None:
            self._report(entry.place, dotted, "has no value: give one, or remove the line")
        else:
            try:
                found[key.field] = key.parse(entry.value)
            except ValueError as error:
                self._report(entry.place, dotted, f"{entry.value!r} {error}")

    def _unknown(self, entries: Mapping[str, _Item], keys: Mapping[str, Key], dotted: str) -> None:
        for name, entry in entries.items():
            if name not in keys:
                key = f"{dotted}.{name}" if dotted else name
                self._report(entry.place, key, f"is not a key here{_did_you_mean(name, keys)}")

    def _note(self, dotted: str, item: _Item | None) -> None:
        if item is not None:
            self._places[dotted] = item.place


def _is_of_storage(cls: type) -> bool:
    """Whether the paths of *cls* are relative to the directory of a storage rather than to the file."""
    return cls is Storage or cls in {key.type for key in keys_of(Storage).values()}


def _variables(names: tuple[str, ...], cls: type) -> dict[str, tuple[str, ...]]:
    """Return the variable of every key below *names*."""
    found = {}
    for name, key in keys_of(cls).items():
        path = (*names, name)
        if key.is_section:
            found.update(_variables(path, key.type))
        else:
            found["NEO_" + "_".join(path).upper().replace("-", "_")] = path
    return found


def _did_you_mean(name: str, known: Mapping[str, object]) -> str:
    close = get_close_matches(name, known, n=1)
    if close:
        return f", did you mean {close[0]}?"
    return f"; there are {', '.join(known)}" if len(known) < 20 else ""
