"""All statements for MariaDB and MySQL that are made at import."""

from collections.abc import Iterator

from neo_storage.backends import logical
from neo_storage.backends.dialect import Many, Scan, Statement
from neo_storage.backends.mysql.queries import PREPARE, QUERIES
from neo_storage.backends.mysql.schema import DIALECT


def built() -> Iterator[str]:
    """Yield their texts."""
    for value in vars(QUERIES).values():
        match value:
            case Statement(text, _):
                yield text
            case Many():
                yield value.single
            case Scan():
                yield from (value.rows.text, value.page.text)
            case tuple():
                yield from (one.text for one in value if isinstance(one, Statement))
    for table in logical.TABLES:
        yield from DIALECT.create(table)
    yield from PREPARE
