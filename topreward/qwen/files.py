"""Where a checkpoint's or an adapter's files lie: a folder of the user's, or the hub's snapshot of one commit.

In goes a name; out come its JSON files as objects, the paths of its weights, and what tells one state of it from
another. Weights are safetensors inside the folder and nothing else: a pickled file is never opened. Knows nothing of
what the files mean.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from topreward.errors import ModelError
from topreward.limits import hold
from topreward.qwen.quiet import quiet

SMALL = ["*.json", "*.jinja"]
WEIGHTS = ["*.safetensors"]
PIECE, PIECES = 2**16, 64  # bytes of a large file's sample, and how many of them


class Files:
    """The files of a checkpoint or an adapter. Raises ModelError where the name is nothing."""

    def __init__(self, name: str, revision: str | None = None, *, kinds: str = "folder or hub id") -> None:
        """`kinds`: what a name that is no folder and cannot be a hub id is told not to be."""
        self.name, self.revision = name, revision
        self.commit: str | None = None
        folder = local_folder(name)
        if folder is not None:
            if revision is not None:
                raise ModelError(f"{name}: a folder has no revisions; leave out the revision '{revision}'")
            self.folder, self.local = folder, True
            return
        if name.startswith((".", "~", "/")) or name.count("/") != 1 or shown(name) != name:
            raise ModelError(f"'{shown(name)}' is no {kinds}")
        # The small files first: a checkpoint of another kind is refused before its weights are fetched.
        self.local = False
        with quiet():
            self.folder = self._snapshot(SMALL)
        self.commit = self.folder.name

    def _snapshot(self, patterns: list[str]) -> Path:
        try:
            return Path(snapshot_download(self.name, revision=self.commit or self.revision, allow_patterns=patterns))
        except LocalEntryNotFoundError as error:
            raise ModelError(f"{self.name}: the hub cannot be reached, and its cache does not hold it") from error
        except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
            raise ModelError(f"{shown(self.name)}: {one_line(error)}") from error

    def path(self, file: str) -> Path | None:
        """A file of the folder, or None."""
        path = self.folder / file
        try:
            return path if path.is_file() else None
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror or error}") from error

    def text(self, file: str) -> str | None:
        """A file's text, or None where it is missing. Raises ModelError where it cannot be read or is too large."""
        path = self.path(file)
        if path is None:
            return None
        try:
            hold("max_text_bytes", path.stat().st_size, path, error=ModelError)
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise ModelError(f"{path}: not readable as UTF-8 ({error})") from error

    def json(self, file: str) -> dict[str, Any] | None:
        """A file's object, or None where it is missing."""
        text = self.text(file)
        if text is None:
            return None
        try:
            data = json.loads(text)
        except RecursionError as error:
            raise ModelError(f"{self.folder / file}: nested too deeply") from error
        except ValueError as error:  # also a number of more digits than Python reads
            raise ModelError(f"{self.folder / file}: not readable as JSON ({one_line(error)})") from error
        if not isinstance(data, dict):
            raise ModelError(f"{self.folder / file}: holds a {type(data).__name__}, want an object")
        return data

    def weights(self, stem: str = "model") -> list[Path]:
        """The safetensors files, fetched where they were not. Raises ModelError where there are none."""
        names = self._weight_names(stem)
        if not self.local and not all((self.folder / name).exists() for name in names):
            self.folder = self._snapshot([*SMALL, *WEIGHTS])  # its bars stay: this takes minutes
            names = self._weight_names(stem)
        missing = [name for name in names if self.path(name) is None]
        if missing:
            pickled = sorted(p.name for p in self.folder.glob("*.bin"))
            more = f"; {pickled[0]} is pickled, and not read" if pickled else ""
            raise ModelError(f"{self.name}: no {missing[0]} there{_and_more(missing)}; weights are safetensors{more}")
        return [self._inside(name) for name in names]

    def indexed(self, stem: str = "model") -> dict[str, str] | None:
        """Which file each tensor lies in, as the index says; None where one file holds all."""
        file = f"{stem}.safetensors.index.json"
        if self.path(f"{stem}.safetensors") is not None:  # as transformers has it: the one file goes first
            return None
        index = self.json(file)
        if index is None:
            return None
        files = index.get("weight_map")
        if not isinstance(files, dict) or not files or not all(isinstance(f, str) for f in files.values()):
            raise ModelError(f"{self.folder / file}: weight_map must say each tensor's file")
        if not isinstance(index.get("metadata"), dict):  # transformers asks for it
            raise ModelError(f"{self.folder / file}: has no metadata, an object beside weight_map")
        for name in sorted(set(files.values())):
            if not name.endswith(".safetensors"):
                raise ModelError(f"{self.folder / file}: names {shown(name)!r}; only safetensors are read")
            if name != Path(name).name or "\\" in name or not name.isprintable() or len(name) > 255:
                raise ModelError(f"{self.folder / file}: names {shown(name)!r}, which is no file of this folder")
        return files

    def _weight_names(self, stem: str) -> list[str]:
        index = self.indexed(stem)
        return [f"{stem}.safetensors"] if index is None else sorted(set(index.values()))

    def _inside(self, name: str) -> Path:
        """A weight file whose bytes lie in the folder, or in the blobs of the hub's cache that it is part of."""
        path, home = self.folder / name, self.folder.resolve()
        homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
        if not any(path.resolve().is_relative_to(place) for place in homes):
            raise ModelError(f"{path}: is a link out of its folder; weights must lie in it")
        return path

    def fingerprint(self, weights: list[Path]) -> str:
        """16 hex digits that tell one state of these files from another, wherever they lie.

        All of the small files, and of a large one its size and samples spread evenly: training changes all weights.
        """
        digest = sha256()
        small = [p for p in sorted(self.folder.glob("*.json")) if p.is_file()]
        try:
            for path in [*small, *weights]:
                size = path.stat().st_size
                digest.update(f"{path.name}\n{size}\n".encode())
                with path.open("rb") as file:
                    if size <= PIECE * PIECES:
                        digest.update(file.read())
                        continue
                    for i in range(PIECES):
                        file.seek((size - PIECE) * i // (PIECES - 1))
                        digest.update(file.read(PIECE))
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror or error}") from error
        return digest.hexdigest()[:16]


def local_folder(name: str) -> Path | None:
    """The folder that a name is, or None. Raises ModelError where there is one that may not be looked into."""
    if not name:
        raise ModelError("the model's name is empty; give an alias, a hub id or a folder")
    try:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            return None
        (folder / "config.json").is_file()
    except PermissionError as error:
        raise ModelError(f"{name}: {error.strerror}") from error
    except (OSError, ValueError, RuntimeError):  # too long, NUL, an unknown ~user
        return None
    return folder


def shown(name: str) -> str:
    """A name as a message can hold it: printable, and not for pages."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return text if len(text) <= 120 else f"{text[:100]}… ({len(name)} characters)"


def one_line(error: BaseException) -> str:
    """What an error says, on one line, and its kind where that alone would say nothing."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyError | AttributeError | IndexError | TypeError) or not text:
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return text if len(text) <= 800 else f"{text[:800]}…"


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
