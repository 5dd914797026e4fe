"""PyIceberg's access to files on S3, behind a proxy that opens TLS."""

from __future__ import annotations

from pyarrow.fs import FileSystem, S3FileSystem
from pyiceberg.io.pyarrow import PyArrowFileIO

from stream.worker.tables.iceberg_properties import AUTHORITIES


class FilesWithAuthorities(PyArrowFileIO):
    """The usual access, trusting the certificate authorities in the file that ``AUTHORITIES`` names instead of the system's."""

    def _initialize_s3_fs(self, netloc: str | None) -> FileSystem:
        usual = super()._initialize_s3_fs(netloc)
        _, (options,) = usual.__reduce__()  # all that it was made with, as for another process
        return S3FileSystem(**(options | {"tls_ca_file_path": self.properties[AUTHORITIES]}))
