"""The statements of the MariaDB back end. Pure. (mysqlclient has no prepared statements.)"""

from typing import Final

from neo_storage.backends.mysql.schema import DIALECT
from neo_storage.backends.statements import Statements

QUERIES: Final = Statements(DIALECT)
