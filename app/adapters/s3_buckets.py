"""The port Buckets on S3, or on what speaks its protocol: one object, copied to a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.domain.errors import Fault, Transient

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 2 << 30
_CHUNK = 1 << 20
_GONE = frozenset({"404", "NoSuchKey", "NoSuchBucket"})
_CLOSED = frozenset({"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"})


class S3Buckets:
    """Reads with the login that boto3 finds; `endpoint` is another address than Amazon's, or empty."""

    def __init__(self, endpoint: str = "", max_bytes: int = MAX_BYTES, timeout_s: float = 30.0) -> None:
        self._endpoint, self._max_bytes, self._timeout_s = endpoint, max_bytes, timeout_s

    def fetch(self, uri: str, into: Path) -> None:
        """Copy the object `s3://<bucket>/<key>` to the new file `into`.

        Raises:
            Fault: it is not there, too large, or closed to us, or the extra `s3` is not installed.
            Transient: the storage did not answer.
        """
        try:
            from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
        except ImportError as error:
            raise Fault(
                "The client for s3: is not installed.", "Install headgate's extra `s3` on the workers."
            ) from error
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        try:
            answer = self._client().get_object(Bucket=bucket, Key=key)
            if answer["ContentLength"] > self._max_bytes:
                raise Fault(f"{uri} is larger than {self._max_bytes} bytes.", "Judge on fewer rows.")
            with into.open("xb") as file:
                chunks: Iterator[bytes] = answer["Body"].iter_chunks(_CHUNK)
                file.writelines(chunks)
        except NoCredentialsError as error:
            raise Fault(f"The workers have no login for {uri}.", "Set AWS_ACCESS_KEY_ID, or a role.") from error
        except ClientError as error:
            raise _refusal(uri, str(error.response.get("Error", {}).get("Code", ""))) from error
        except (BotoCoreError, OSError) as error:
            # What boto3 says may quote signed URLs, so that only the kind of its error is told.
            raise Transient(f"Reading {uri} failed ({type(error).__name__}).", "It is read again.") from error

    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(connect_timeout=5, read_timeout=self._timeout_s, retries={"max_attempts": 1})
        # A session of its own: the shared one would keep the first login that it found for ever.
        return boto3.session.Session().client("s3", endpoint_url=self._endpoint or None, config=config)


def _refusal(uri: str, code: str) -> Fault | Transient:
    if code in _GONE:
        return Fault(f"{uri} is not there.", "Put the rows where data.uri of the policy says.")
    if code in _CLOSED:
        return Fault(f"The workers may not read {uri}.", "Give them a login that may.")
    return Transient(f"Reading {uri} failed ({code or 'without a reason'}).", "It is read again.")
