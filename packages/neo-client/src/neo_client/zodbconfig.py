"""The section `<neostorage>` of ZConfig files: `component.xml` says what may stand in it."""

from typing import Any

from ZODB.config import BaseConfig

from neo_client.options import Options, split_masters
from neo_client.storage import Storage
from neo_common.errors import ConfigError


class NeoStorageConfig(BaseConfig):  # type: ignore[misc]
    """Opens what a section describes."""

    def open(self) -> Storage:
        """Return the storage.

        Raises: ValueError that names section and key, as ZConfig's own errors are.
        """
        return Storage(options_of(self.config, self.name))


def options_of(config: Any, section: str | None = None) -> Options:
    """Return the options that stand in a section."""
    try:
        return Options(
            masters=split_masters(config.master),
            name=config.cluster_name,
            cache_size_bytes=config.cache_size,
            read_only=config.read_only,
            wait_timeout_s=float(config.wait_timeout),
            wait=config.wait,
            server_sync=config.server_sync,
            compress=config.compress,
            two_phase=config.two_phase,
            pack_gc=config.pack_gc,
            client_label=config.client_label or "",
            secret_file=config.secret_file or "",
            secret=config.secret or "",
            tls_ca=config.tls_ca or "",
            tls_certificate=config.tls_certificate or "",
            tls_key=config.tls_key or "",
            blob_dir=config.blob_dir,
        )
    except ConfigError as error:
        raise ValueError(f"<neostorage{' ' + section if section else ''}>: {error}") from error
