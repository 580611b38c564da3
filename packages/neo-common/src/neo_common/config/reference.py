"""The sample file with every key, and the page of documentation, made from the sections. Pure.

`neoadmin config sample` and `neoadmin config reference` print them; `config/neo.yaml` and `docs/configuration.md` are
what they print, and a test says so.
"""

from collections.abc import Iterator
from textwrap import wrap

from neo_common.config.keys import NODE_SECTIONS, Key, keys_of
from neo_common.config.sections import Config
from neo_common.config.values import Written

_HEAD = """\
# Every key of a NEO cluster's configuration, with its default and its unit. The same file goes to every host.
#
# Only `cluster.name` and the addresses of the nodes are required: begin with one-machine.yaml or three-machines.yaml
# and take from here what you want to change.
#
# Durations: 3s, 500ms, 2min, 1h. Sizes: 64MB, 8kB, 4096 (units are powers of 1024). Paths may be relative to this file.
# Any key can be given in the environment (NEO_TIMEOUTS_LEASE=5s) or on a command line (--set timeouts.lease=5s).
"""
_PAGE_HEAD = """\
# Configuration

One YAML file describes the cluster; the same file goes to every host. `config/one-machine.yaml` and
`config/three-machines.yaml` are complete examples, `config/neo.yaml` is a sample of every key. This page is made by
`neoadmin config reference`; `neoadmin config check` explains everything that is wrong in a file at once.

Later sources win: the defaults below, the file, the environment, `--set` on the command line. All use the same names:

| file | environment | command line |
|---|---|---|
| `timeouts: {lease: 5s}` | `NEO_TIMEOUTS_LEASE=5s` | `--set timeouts.lease=5s` |
| `storages: {s1: {log: {path: /ssd}}}` | `NEO_STORAGES_S1_LOG_PATH=/ssd` | `--set storages.s1.log.path=/ssd` |

A variable is `NEO_`, then the keys joined by `_`, in capitals, with `-` as `_`. It can change a node of the file but
not add one; `--set` can do both. A variable that begins as one of these and names no key is an error. Paths in
variables and options are relative to the file, as those in it. Without `--config`, `neoadmin` and the daemons take the
file that `NEO_CONFIG` names.

Durations are written `3s`, `500ms`, `2min`, `1h`, sizes `64MB`, `8kB`, `4096`: units of size are powers of 1024.
"""
_EXAMPLES = {
    "masters": ("m1", "127.0.0.1:10010"),
    "storages": ("s1", "127.0.0.1:10020"),
    "admins": ("a1", "127.0.0.1:10000"),
}


def sample() -> str:
    """Return the commented sample: every key of every section, at its default."""
    return "\n".join([_HEAD, *_sample_lines()]) + "\n"


def _sample_lines() -> Iterator[str]:
    for name, key in keys_of(Config).items():
        cls = NODE_SECTIONS.get(name) or key.type
        yield f"# {_first_line(cls)}"
        yield f"{name}:"
        if name in NODE_SECTIONS:
            node, address = _EXAMPLES[name]
            yield f"  {node}:"
            yield from _sample_keys(cls, "    ", address)
        else:
            yield from _sample_keys(cls, "  ", "")
        yield ""


def _sample_keys(cls: type, indent: str, address: str) -> Iterator[str]:
    for name, key in keys_of(cls).items():
        yield from (f"{indent}# {line}" for line in wrap(_meaning(key), 116 - len(indent)))
        if key.is_section:
            yield f"{indent}{name}:"
            yield from _sample_keys(key.type, indent + "  ", "")
        elif key.is_required:
            yield f"{indent}{name}: {address or 'example'}"
        else:
            yield f"{indent}{name}: {_default(key)}"


def page() -> str:
    """Return docs/configuration.md."""
    return "\n".join([_PAGE_HEAD, *_page_lines()])


def _page_lines() -> Iterator[str]:
    for name, key in keys_of(Config).items():
        cls = NODE_SECTIONS.get(name) or key.type
        yield f"## {name}"
        yield ""
        if name in NODE_SECTIONS:
            yield f"A mapping of names to nodes. {_first_line(cls)}"
        else:
            yield _first_line(cls)
        yield ""
        yield "| key | default | meaning |"
        yield "|---|---|---|"
        yield from _page_keys(cls, "")
        yield ""


def _page_keys(cls: type, prefix: str) -> Iterator[str]:
    for name, key in keys_of(cls).items():
        if key.is_section:
            yield from _page_keys(key.type, f"{prefix}{name}.")
        else:
            default = "required" if key.is_required else f"`{_default(key)}`"
            yield f"| `{prefix}{name}` | {default} | {_meaning(key).replace('|', '&#124;')} |"


def _meaning(key: Key) -> str:
    """Return the text of *key*, with what may be written."""
    extra = ""
    low, high = key.about.low, key.about.high
    if key.choices and len(key.choices) > 1:
        extra = ", ".join(key.choices)
    elif low and high is not None:
        extra = f"{key.text(low)} to {key.text(high)}"
    elif low:
        extra = f"at least {key.text(low)}"
    elif high is not None:
        extra = f"at most {key.text(high)}"
    text = f"time {key.about.text}" if key.written is Written.SECONDS else key.about.text
    return f"{text} ({extra})" if extra else text


def _default(key: Key) -> str:
    return key.text(key.default) or '""'


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").splitlines()[0]
