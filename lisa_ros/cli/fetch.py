"""`lisa-ros fetch OWNER/NAME`: a model of the Hugging Face hub and its CLIP tower into the cache.

Says what comes before anything comes, goes on where it was stopped, and lets nothing into the cache
whose SHA-256 is not the one that the hub names: huggingface_hub itself looks at the size alone, and
begins an interrupted file anew in the next process.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lisa_ros.errors import CheckpointError, LisaError, WriteError
from lisa_ros.model.hub import is_official, parse_id, read_settings, sha256, tower_name
from lisa_ros.writing import locked, reason, sync, writable_folder, write_file

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

CONFIG = "config.json"
SETTINGS = re.compile(r"[\w-]+\.json|tokenizer\.model|LICEN[CS]E[\w.-]*")
CLIP, SPEECH = ("clip", "clip_vision_model"), ("whisper", "moonshine")
"""What a `config.json` calls a tower of LISA, and a model of `lisa-ros listen`."""
WEIGHTS = (("model", "safetensors"), ("pytorch_model", "bin"))
"""Stem and ending of files of weights, in the order in which they are preferred for loading."""
SPARE = 100e6  # bytes that a disk keeps beside what is downloaded
MEGABYTE = 1e6


class FetchError(LisaError):
    """A model cannot be had from the hub."""


@dataclass(frozen=True)
class Listing:
    """One repository of the hub, at the commit that its revision means now."""

    name: str
    revision: str
    commit: str
    licence: str
    files: list[RepoSibling]
    """those that a LISA is loaded from"""
    folder: Path
    """of the repository in the cache"""

    def lacks(self, file: RepoSibling) -> int:
        """Bytes of a file that are still to come."""
        if self.path(file).exists():
            return 0
        part = self.part(file) if file.lfs else None
        return (file.size or 0) - (part.stat().st_size if part and part.exists() else 0)

    def part(self, file: RepoSibling) -> Path:
        """Where a file of weights grows until it is whole."""
        return self.folder / "blobs" / f"{file.lfs.sha256}.incomplete"

    def path(self, file: RepoSibling) -> Path:
        """Where a file stands in the cache once it is there."""
        return self.folder / "snapshots" / self.commit / file.rfilename


def add_fetch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", help="owner/name on the hub, for example xinlai/LISA-7B-v1")
    parser.add_argument("--revision", help="branch, tag or commit (default: main)")


def run_fetch(args: argparse.Namespace) -> int:
    """Look, say what comes, download, check, tell the line that starts the node."""
    wanted = args.id if args.revision is None else f"{args.id}@{args.revision}"
    parsed = parse_id(wanted)
    if parsed is None:
        raise FetchError(
            f"{wanted!r} is no id of the hub: it must be owner/name, of letters, digits, '-', '_'"
            " and single dots, for example xinlai/LISA-7B-v1"
        )
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = writable_folder(Path(HF_HUB_CACHE))

    # 1. What there is, and whether it is a LISA at all.
    listings = [look_up(*parsed, cache)]
    settings = read_settings(download_small(listings[0], CONFIG))
    kind = settings.get("model_type")
    if is_official(settings):
        tower = parse_id(tower_name(settings))
        if tower is None:
            print(f"{args.id} was trained with the CLIP tower {tower_name(settings)}, which is no")
            print("id of the hub: name its folder as --vision-tower (vision_tower:=)")
        else:
            listings.append(look_up(*tower, cache))
    elif "seg_token_id" not in settings and kind not in (*CLIP, *SPEECH):
        raise CheckpointError(
            f"{args.id} is no LISA: its {CONFIG} is that of {kind or 'something else'}"
        )

    # 2. Say what comes, and whether there is room for it.
    for listing in listings:
        describe(listing)
    coming = sum(listing.lacks(file) for listing in listings for file in listing.files)
    free = shutil.disk_usage(cache).free
    print(f"to download: {size(coming)} into {cache}, where {size(free)} are free")
    if coming + SPARE > free:
        raise WriteError(
            f"{cache} has no room for it: {size(coming)} are to come and {size(SPARE)} to stay"
            " free; make room, or set HF_HOME to a folder on a larger disk"
        )

    # 3. Download; the name of the revision comes last, so that what it leads to is whole.
    for listing in listings:
        with locked(cache / ".locks" / listing.folder.name):
            for file in listing.files:
                if file.lfs:
                    download_large(listing, file)
                else:
                    download_small(listing, file.rfilename)
            if listing.revision != listing.commit:
                reference = listing.folder / "refs" / listing.revision
                reference.parent.mkdir(parents=True, exist_ok=True)
                write_file(reference, listing.commit)
        print(f"{listing.name}: all {len(listing.files)} files are there and as the hub has them")
    name, revision = parsed
    model = name if revision == "main" else f"{name}@{revision}"
    if kind in SPEECH:
        print(f"listen with: lisa-ros listen --model {model}")
    else:
        print(f"start the node with: lisa-ros node --model {model} --image /camera/image_raw")
    return 0


def look_up(name: str, revision: str, cache: Path) -> Listing:
    """Ask the hub what a repository has."""
    from huggingface_hub import HfApi
    from huggingface_hub.file_download import repo_folder_name

    with spoken(name, revision):
        found = HfApi().model_info(name, revision=revision, files_metadata=True)
    siblings = {file.rfilename: file for file in found.siblings or []}
    if "pytorch_model-visual_model.bin" in siblings:
        raise CheckpointError(
            f"{name} is a LISA v0, which speaks another prompt and is not supported; use a v1 model"
        )
    weights: list[str] = []
    for stem, suffix in WEIGHTS:
        index = f"{stem}.{suffix}.index.json"
        if index in siblings:
            shard = re.compile(rf"{stem}-\d+-of-\d+\.{suffix}")
            weights = [index, *(file for file in siblings if shard.fullmatch(file))]
        elif f"{stem}.{suffix}" in siblings:
            weights = [f"{stem}.{suffix}"]
        if weights:
            break
    if not weights or CONFIG not in siblings:
        raise CheckpointError(f"{name} holds no model: no {CONFIG}, or no weights beside it")
    others = [file for file in siblings if SETTINGS.fullmatch(file)]
    card = found.card_data
    return Listing(
        name,
        revision,
        str(found.sha),
        str(getattr(card, "license", None) or "none named: ask its authors"),
        [siblings[file] for file in (*others, *weights)],
        cache / repo_folder_name(repo_id=name, repo_type="model"),
    )


def describe(listing: Listing) -> None:
    """Print what a repository has and what of it is there already."""
    print(f"{listing.name} at {listing.revision} ({listing.commit[:12]})")
    print(f"  licence: {listing.licence}")
    for file in listing.files:
        lacks, whole = listing.lacks(file), file.size or 0
        there = f"  ({size(whole - lacks)} are there)" if lacks else "  (there)"
        print(f"  {size(whole):>11}  {file.rfilename}{there * (lacks < whole)}")


def download_small(listing: Listing, file: str) -> Path:
    """A file of settings, as huggingface_hub does it."""
    from huggingface_hub import hf_hub_download

    with spoken(listing.name, listing.revision):
        return Path(hf_hub_download(listing.name, file, revision=listing.commit))


def download_large(listing: Listing, file: RepoSibling) -> None:
    """A file of weights: its part goes on to grow, and enters the cache once its hash is right.

    Raises:
        FetchError: the hub cannot be had, or what came is not what it names.
        WriteError: it cannot be written; what has come stays.
    """
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    digest = file.lfs.sha256
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise FetchError(f"the hub names no SHA-256 for {file.rfilename} of {listing.name}")
    blob = listing.folder / "blobs" / digest
    part = listing.part(file)
    if not blob.exists() or sha256(blob) != digest:
        blob.parent.mkdir(parents=True, exist_ok=True)
        if part.exists() and part.stat().st_size > file.size:
            part.unlink()
        url = hf_hub_url(listing.name, file.rfilename, revision=listing.commit)
        with spoken(listing.name, listing.revision), part.open("ab") as target:
            http_get(
                url,
                target,
                resume_size=target.tell(),
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.rfilename,
            )
        found = sha256(part)
        if found != digest:
            part.unlink()
            raise FetchError(
                f"{file.rfilename} of {listing.name} arrived damaged (SHA-256 {found[:12]}... where"
                f" the hub names {digest[:12]}...) and was thrown away; fetch it again"
            )
        sync(part)
        os.replace(part, blob)
    with spoken(listing.name, listing.revision):  # finds the blob, and puts it into the snapshot
        there = hf_hub_download(listing.name, file.rfilename, revision=listing.commit)
    if Path(there).stat().st_size != file.size:
        raise FetchError(f"{there} is not the file that was downloaded; remove it and fetch again")


@contextmanager
def spoken(name: str, revision: str) -> Iterator[None]:
    """What the hub or the disk refuses, as one sentence."""
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.GatedRepoError:
        sentence = (
            f"{name} is gated: accept its conditions on its page of the hub, make a token there and"
            " set HF_TOKEN"
        )
    except errors.RepositoryNotFoundError:
        sentence = (
            f"{constants.ENDPOINT} has no model {name}, or a private one: look at the spelling, or"
            " set HF_TOKEN"
        )
    except errors.RevisionNotFoundError:
        sentence = f"{name} has no revision {revision}"
    except errors.OfflineModeIsEnabled:
        sentence = "HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids to reach the hub: unset it"
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        sentence = f"{constants.ENDPOINT} answered {code} about {name}" + (
            ": it does not accept the token (HF_TOKEN)" if code in (401, 403) else "; try again"
        )
    except (errors.HTTPError, errors.LocalEntryNotFoundError) as error:
        cause = re.sub(r"\[Errno -?\d+\] ", "", str(error.__cause__ or error))
        sentence = (
            f"{constants.ENDPOINT} cannot be reached ({cause}); what has come stays, and the same"
            " command goes on from there"
        )
    except KeyboardInterrupt:
        print("stopped: the same command goes on from there", file=sys.stderr)
        raise
    except OSError as error:
        if error.errno is None:  # fewer bytes than were promised
            raise FetchError(f"{name}: {error}") from error
        raise WriteError(
            f"cannot write into {error.filename or constants.HF_HUB_CACHE}: {reason(error)}; what"
            " has come stays, and the same command goes on from there"
        ) from error
    else:
        return
    raise FetchError(sentence)


def size(count: float) -> str:
    """A number of bytes for people, in decimal units as disks have them."""
    if count < MEGABYTE:
        return f"{count / 1e3:,.1f} kB"
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.2f} GB"
