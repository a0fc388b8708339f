"""The same of a product's store in an S3 bucket: a document, and how large an object is.

Credentials and endpoint come from the environment, as the runner's do: AWS_* and FSSPEC_S3_*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stac_watch.model.errors import InputError, Temporary

SCHEME = "s3://"
_OPTIONS: dict[str, Any] = {
    # botocore's own patience is minutes for each object, and polls wait
    "config_kwargs": {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 1}},
    "use_listings_cache": False,
    "skip_instance_cache": True,
}


class Buckets:
    """Requests to S3, one after another; of one thread at a time. Nothing is opened before the first."""

    def __init__(self) -> None:
        self._opened: Any = None

    def read(self, url: str, most: int) -> bytes | None:
        """Returns an object's content; None where it is not there.

        Raises:
            InputError: it has more than `most` bytes, or there is no way to S3 from here.
            Temporary: no usable answer.
        """

        def ask(fs: Any, bucket: str, key: str) -> bytes:  # noqa: ANN401  # fsspec has no types
            content: bytes = fs.cat_file(f"{bucket}/{key}", start=0, end=most + 1)
            return content

        found = self._asked(url, ask)
        if found is not None and len(found) > most:
            raise InputError(f"{url} is larger than {most >> 20} MiB")
        return found

    def size(self, url: str) -> int | None:
        """Returns an object's size in bytes; None where it is not there.

        Raises:
            InputError | Temporary: see `read`.
        """
        return self._asked(url, lambda fs, bucket, key: int(fs.call_s3("head_object", Bucket=bucket, Key=key)["ContentLength"]))

    def _asked[T](self, url: str, ask: Callable[[Any, str, str], T]) -> T | None:
        try:
            if self._opened is None:
                self._opened = _open()
            bucket, _, key = url.removeprefix(SCHEME).partition("/")
            return ask(self._opened, bucket, key)
        except (FileNotFoundError, PermissionError):  # as HTTP's 403 is: of a bucket that may not be listed it means both
            return None
        except ImportError as error:
            raise InputError(f"{url} cannot be asked for: {error}", hint="s3:// takes stac-watch[s3]") from error
        except Exception as error:  # each of botocore's errors is of a class of its own, and none an OSError
            raise Temporary(f"{url}: {' '.join(str(error).split()) or type(error).__name__}") from error


def _open() -> Any:  # noqa: ANN401  # fsspec has no types
    import fsspec

    fs = fsspec.filesystem("s3", **_OPTIONS)
    fs.connect()
    from botocore.handlers import validate_bucket_name

    fs.s3.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)  # stores have `tenant:bucket`, as Ceph's
    return fs
