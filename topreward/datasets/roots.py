"""Where a dataset's files are: a local folder, or a repository on the Hugging Face hub.

In: a folder or a hub id. Out: local files, asked for one by one by their path within the dataset; those of
the hub are downloaded when they are asked for. Knows nothing of what the files hold.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from topreward.datasets.messages import one_line, short
from topreward.datasets.paths import file_under, kind_of, plain_relative, readable_file, user_path
from topreward.errors import DatasetError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*")


class Root(Protocol):
    """The files of one dataset."""

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def revision(self) -> str | None:
        """The commit, where there is one."""

    def file(self, relative: str) -> Path:
        """A local copy of a file. Raises DatasetError where there is none."""

    def meta_files(self, pattern: str) -> list[str]:
        """Paths below `meta/` that match a glob pattern, sorted."""


@dataclass(frozen=True)
class LocalRoot:
    """A folder on this machine."""

    folder: Path
    revision: None = None

    @property
    def name(self) -> str:
        return str(self.folder)

    def file(self, relative: str) -> Path:
        path = file_under(self.folder, relative, where=self.name)
        where = f"{self.name}: the file {short(relative)}"
        if kind_of(path, where=where) is None:
            raise DatasetError(f"{self.name}: the file {relative} is missing")
        readable_file(path, where=where)
        return path

    def meta_files(self, pattern: str) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.glob(pattern))


@dataclass(frozen=True)
class HubRoot:
    """A dataset repository of the hub at one commit.

    `meta/` is there from the start, everything else is fetched on demand into the ordinary Hugging Face cache,
    so what was fetched once works offline (`HF_HUB_OFFLINE=1`) as well.
    """

    repo_id: str
    revision: str
    """The commit, so that files fetched later belong to the metadata read first."""
    snapshot: Path
    """The cache's folder of that commit; complete only below `meta/`."""

    @property
    def name(self) -> str:
        return f"{self.repo_id}@{self.revision[:12]}"

    def file(self, relative: str) -> Path:
        from huggingface_hub import hf_hub_download

        relative = plain_relative(relative, where=self.name)
        try:
            return Path(hf_hub_download(self.repo_id, relative, repo_type="dataset", revision=self.revision))
        except Exception as error:  # its errors have no common base: HTTP, offline, missing entry, disk, validation
            raise DatasetError(
                f"{self.name}: cannot fetch {relative} ({type(error).__name__}: {one_line(error)})"
            ) from error

    def meta_files(self, pattern: str) -> list[str]:
        return sorted(path.relative_to(self.snapshot).as_posix() for path in self.snapshot.glob(pattern))


def open_root(location: str, *, revision: str | None = None) -> Root:
    """A folder that exists, else a hub id (`owner/name`), of which `meta/` is fetched now.

    `revision`: branch, tag or commit of a hub dataset; None is its main branch. Raises DatasetError if it is
    neither, or cannot be reached and is not in the cache.
    """
    if not location:
        raise DatasetError("lerobot: names no dataset, want lerobot:<folder> or lerobot:<owner>/<name>")
    folder = user_path(location, where="lerobot:")
    found = kind_of(folder, where=f"lerobot:{location}")
    if found == "folder":
        if not os.access(folder, os.R_OK | os.X_OK):
            raise DatasetError(f"lerobot:{location}: no permission to read the folder")
        if revision is not None:
            raise DatasetError(f"{location} is a local folder, it has no revision {revision!r}")
        return LocalRoot(folder)
    if found is not None:
        raise DatasetError(f"{location} is a file, want the dataset's folder (the one that holds meta/info.json)")
    if not _HUB_ID.fullmatch(location):
        raise DatasetError(f"there is no folder {location!r}, and a hub id looks like owner/name")
    return _hub_root(location, revision)


def _hub_root(repo_id: str, revision: str | None) -> HubRoot:
    from huggingface_hub import snapshot_download

    named = f"{repo_id}@{revision}" if revision else repo_id
    try:
        snapshot = snapshot_download(repo_id, repo_type="dataset", revision=revision, allow_patterns=["meta/*"])
    except Exception as error:  # as above
        cause = f"{type(error).__name__}: {one_line(error)}"
        raise DatasetError(
            f"there is no folder {repo_id!r}, and the hub dataset {named} cannot be opened ({cause})"
        ) from error
    folder = Path(snapshot)
    # The cache keeps a commit in snapshots/<commit>: that name pins the files still to be fetched.
    return HubRoot(repo_id=repo_id, revision=folder.name, snapshot=folder)
