"""Text to ids and back, as the reference does it: sentencepiece between added tokens.

The reference used the "legacy" slow Llama tokenizer of transformers 4.31: added tokens are cut out
first, the white space beside them is swallowed, and what lies between is given to sentencepiece.
Later tokenizers give other ids for the same prompt without an error, hence this one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from lisa_ros.errors import CheckpointError
from lisa_ros.model.config import IMAGE_TOKEN, SEG
from lisa_ros.model.hub import read_settings
from lisa_ros.model.prompt import IMAGE_PLACEHOLDER, check_text
from lisa_ros.writing import write_file

MODEL_FILE = "tokenizer.model"
ADDED_FILE = "added_tokens.json"


class Tokenizer:
    """A sentencepiece model and the tokens added to it."""

    def __init__(
        self, model: bytes, added_tokens: Mapping[str, int], new: Sequence[str] = ()
    ) -> None:
        """`model` is the content of a `tokenizer.model`; `added_tokens` maps text to id.

        `new`: tokens that get the next ids behind all others, unless they are there already.
        """
        self._model = model
        self._pieces = SentencePieceProcessor(model_proto=model)
        size = max([len(self._pieces), *(i + 1 for i in added_tokens.values())])
        lacking = [text for text in new if text not in added_tokens]
        added = {**added_tokens, **{text: size + i for i, text in enumerate(lacking)}}
        self.added_tokens = dict(sorted(added.items(), key=lambda item: item[1]))
        self.size = size + len(lacking)
        self.bos_id: int = self._pieces.bos_id()
        self.eos_id: int = self._pieces.eos_id()
        self.unk_id: int = self._pieces.unk_id()
        self.pad_id = self.unk_id
        self.seg_id = self.added_tokens[SEG]
        self._silent = {self.bos_id, self.eos_id, self.unk_id}
        control = {self._pieces.id_to_piece(i): i for i in self._silent}
        self._words = control | self.added_tokens
        self._added_names = {i: text for text, i in self.added_tokens.items()}
        self._cuts = _alternatives(self._words)
        self._cuts_added_only = _alternatives(self.added_tokens)

    @classmethod
    def from_folder(cls, folder: Path, new: Sequence[str] = ()) -> Tokenizer:
        """Read `tokenizer.model` and `added_tokens.json`, official or native, and add `new` ones.

        Without `new` the folder must give an id for [SEG].
        """
        path, added = folder / ADDED_FILE, {}
        if path.exists():
            added = read_settings(path)
            if not (SEG in new or isinstance(added.get(SEG), int)):
                raise CheckpointError(f"{path} gives no id for {SEG}")
        elif SEG not in new:
            raise CheckpointError(
                f"{folder} has no {path.name}; without it the id of {SEG} is unknown"
            )
        try:
            return cls((folder / MODEL_FILE).read_bytes(), added, new)
        except OSError as error:
            raise CheckpointError(f"cannot read {folder / MODEL_FILE}: {error.strerror}") from error
        except RuntimeError as error:
            raise CheckpointError(f"{folder / MODEL_FILE} is no sentencepiece model") from error

    def save(self, folder: Path) -> None:
        """Write `tokenizer.model` and `added_tokens.json`."""
        write_file(folder / MODEL_FILE, self._model)
        write_file(folder / ADDED_FILE, json.dumps(self.added_tokens, indent=2) + "\n")

    def encode(self, prompt: str, *, end_as_text: bool = False) -> list[int]:
        """Turn a prompt into ids: BOS first, IMAGE_TOKEN where `<image>` stands.

        `</s>` and the other control words are read as their ids, as the released models were
        trained. `end_as_text` spells them out instead, as a tokenizer that was not loaded from a
        folder did in the reference.
        """
        check_text(prompt)  # what is learnt from has met no other check
        cuts = self._cuts_added_only if end_as_text else self._cuts
        ids = [self.bos_id]
        for index, part in enumerate(prompt.split(IMAGE_PLACEHOLDER)):
            if index:
                ids.append(IMAGE_TOKEN)
            ids.extend(self._encode_part(part, cuts))
        return ids

    def _encode_part(self, text: str, cuts: re.Pattern[str]) -> list[int]:
        chunks = cuts.split(text)
        ids: list[int] = []
        for index, chunk in enumerate(chunks):
            if index % 2:
                ids.append(self._words[chunk])
                continue
            if index and chunks[index - 1] in self.added_tokens:
                chunk = chunk.lstrip()
            if index + 1 < len(chunks) and chunks[index + 1] in self.added_tokens:
                chunk = chunk.rstrip()
            if chunk:
                ids.extend(self._pieces.encode(chunk))
        return ids

    def spelled(self, ids: Iterable[int]) -> list[str]:
        """What each id adds to a text, blanks included; nothing for added and control ids."""
        return [
            self._pieces.id_to_piece(i).replace("\u2581", " ")
            if 0 <= i < len(self._pieces) and i not in self._silent
            else ""
            for i in ids
        ]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids into readable text; control ids and IMAGE_TOKEN leave no trace.

        Added tokens keep their names, one blank before and none before punctuation:
        `It is the red mug [SEG].`
        """
        text, run = "", []
        for i in [*ids, None]:
            if i is not None and i not in self._added_names:
                if i != IMAGE_TOKEN and i not in self._silent:
                    run.append(i)
                continue
            text = _join(text, self._pieces.decode(run).strip() if run else "")
            run = []
            if i is not None:
                text = _join(text, self._added_names[i])
        return text


def _alternatives(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern that cuts a text at any of the words, the longest where several fit."""
    return re.compile("(" + "|".join(map(re.escape, sorted(words, key=len, reverse=True))) + ")")


def _join(left: str, right: str) -> str:
    glue = "" if not left or not right or right[0] in ".,;:!?)" else " "
    return left + glue + right
