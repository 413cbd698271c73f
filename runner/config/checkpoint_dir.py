"""What `checkpoint_dir:` may be: a path, or a URL of a storage that several machines see."""

from pathlib import Path

from runner.errors import UserError

SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hdfs", "sftp", "smb")
"""Object stores and network file systems. Other schemes of fsspec, such as github, are no storage for checkpoints."""

ALLOWED = "allowed: a folder below the config's folder, an absolute path, or a URL that begins with " + ", ".join(
    f"{scheme}://" for scheme in SCHEMES
)


def checked(place: str, folder: Path) -> str:
    """The place with an absolute path, where it is a path. `folder` is the config's folder.

    Errors: UserError for a place that is not allowed.

    >>> checked("s3://bucket/checkpoints", Path())
    's3://bucket/checkpoints'
    >>> checked("ftp://host/checkpoints", Path())
    Traceback (most recent call last):
    runner.errors.UserError: checkpoint_dir: 'ftp://host/checkpoints' has an unknown scheme; allowed: a folder below ...
    """
    scheme, url, _ = place.partition("://")
    if url and (scheme not in SCHEMES or "::" in place):
        # With "::", fsspec would put one storage into another.
        raise UserError(f"checkpoint_dir: '{place}' has an unknown scheme; {ALLOWED}")
    if url:
        return place
    try:
        path = (folder / place).resolve()
        outside = not Path(place).is_absolute() and not path.is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:
        raise UserError(f"checkpoint_dir: '{place}' cannot be used: {error}") from None
    if outside:
        raise UserError(f"checkpoint_dir: '{place}' leads out of the config's folder; {ALLOWED}")
    return str(path)
