"""What a recipe may say, and how it is read: YAML with file and line in every complaint.

The presets lie in `recipes/`; `recipe.py` follows what is read here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from lisa_ros.errors import LisaError, counted
from lisa_ros.evaluation.published import CATALOGUE

PRESETS = Path(__file__).parent / "recipes"
LISA_SETS = {
    "sem_seg": ["ade20k", "cocostuff", "pascal_part", "paco_lvis", "mapillary"],
    "refer_seg": ["refclef", "refcoco", "refcoco+", "refcocog"],
    "vqa": ["llava_instruct"],
    "reason_seg": ["reasonseg"],
}


class RecipeError(LisaError):
    """A recipe cannot be followed: which file, which line, what to write instead."""


@dataclass(frozen=True)
class Recipe:
    """What a YAML file may say; the values here are those of LISA's released script.

    Begins with `model` (a LISA), or with `llava` and `sam`. Learns from the published sets below
    `data` (groups in `sets`, drawn by `rates`), or from the folder `questions` in ReasonSeg's
    format. A step is `batch` images, `accumulate` times, on every rank. After each epoch the
    questions of the folder `validation` are answered, and at last the best weights are written.
    `group_by_length`: the images of a step with the longest dialogues come together. `cache`: a
    folder for what the frozen encoders say of images, of `cache_gb` at most.
    """

    output: str = ""
    model: str = ""
    llava: str = ""
    sam: str = ""
    vision_tower: str = ""
    data: str = ""
    sets: dict = field(default_factory=lambda: dict(LISA_SETS))
    rates: list = field(default_factory=lambda: [9, 3, 3, 1])
    explanatory: float = 0.1
    questions: str = ""
    validation: str = ""
    epochs: int = 10
    steps_per_epoch: int = 500
    batch: int = 2
    accumulate: int = 10
    lr: float = 3e-4
    warm_up: int = 100
    decay: str = "linear"
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    precision: str = "bfloat16"
    checkpoint_activations: bool = True
    shard: bool = True
    group_by_length: bool = False
    workers: int = 4
    cache: str = ""
    cache_gb: float = 100.0
    seed: int = 0
    official: bool = True

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch


_CHOICES = {"decay": ("linear", "cosine"), "precision": ("bfloat16", "float32")}
_LEAST = {"steps_per_epoch": 1, "epochs": 1, "batch": 1, "accumulate": 1, "lora_rank": 1,
          "lora_alpha": 1, "lora_dropout": 0, "explanatory": 0, "workers": 0, "warm_up": 0,
          "lr": 0, "cache_gb": 0, "seed": 0}  # fmt: skip
_MOST = {"lora_dropout": 1, "explanatory": 1}


def read_recipe(path: Path | str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe, or a preset by its name; `overrides` win.

    Raises:
        RecipeError: a key that does not exist or stands twice, a value of another kind or out of
            its range; with file and line.
    """
    path = Path(path)
    if not path.exists() and (PRESETS / f"{path.name.removesuffix('.yaml')}.yaml").exists():
        path = PRESETS / f"{path.name.removesuffix('.yaml')}.yaml"
    try:
        with path.open("rb") as file:  # in UTF-8 or UTF-16; a fault is said with the file's name
            loader = yaml.SafeLoader(file)
            root = loader.get_single_node()
            values = (loader.construct_document(root) if root else {}) or {}
    except OSError as error:
        known = ", ".join(sorted(one.stem for one in PRESETS.glob("*.yaml")))
        raise RecipeError(f"cannot read {path}: {error.strerror} (presets: {known})") from error
    except yaml.reader.ReaderError as error:
        said = " ".join(str(error).split())
        raise RecipeError(f"{path} is no text in UTF-8: {said}; save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} must be a table of keys and values")
    places: dict[Any, str] = {}
    for key, _ in root.value if root else ():
        place = f"{path}, line {key.start_mark.line + 1}"
        if key.value in places:  # YAML would take the last one without a word
            raise RecipeError(f"{place}: {key.value} stands in {places[key.value]} already")
        places[key.value] = place
    values |= overrides or {}
    places |= {key: f"{key}={value}" for key, value in (overrides or {}).items()}
    recipe = Recipe(**{k: _value(k, v, places.get(k, str(path))) for k, v in values.items()})
    if len(recipe.rates) != len(recipe.sets):
        place = places.get("rates", places.get("sets", str(path)))
        numbers = counted(len(recipe.sets), "number")
        raise RecipeError(f"{place}: rates must be {numbers}, one for each group")
    return recipe


def _value(key: str, value: Any, place: str) -> Any:
    kinds = get_type_hints(Recipe)
    if key not in kinds:
        known = ", ".join(kinds)
        raise RecipeError(f"{place}: there is no key {key}; a recipe knows {known}")
    kind = kinds[key]
    if kind is float and type(value) in (int, str):
        try:
            value = float(value)  # YAML takes 3e-4 for a word
        except ValueError:
            raise RecipeError(f"{place}: {key} must be a number, not {value!r}") from None
    if type(value) is not kind:
        raise RecipeError(f"{place}: {key} must be {kind.__name__}, not {value!r}")
    if key in _CHOICES and value not in _CHOICES[key]:
        raise RecipeError(f"{place}: {key} must be one of {', '.join(_CHOICES[key])}")
    if key in _LEAST and not value >= _LEAST[key]:  # not a number is less than nothing
        raise RecipeError(f"{place}: {key} must be at least {_LEAST[key]}")
    if kind is float and not math.isfinite(value):
        raise RecipeError(f"{place}: {key} must be finite")
    if key in _MOST and value > _MOST[key]:
        raise RecipeError(f"{place}: {key} must be at most {_MOST[key]}")
    if key == "rates" and not all(type(one) in (int, float) and one > 0 for one in value):
        raise RecipeError(f"{place}: rates must be numbers above 0")
    if key == "sets":
        for group, names in value.items():
            if not isinstance(names, list) or not names:
                raise RecipeError(f"{place}: the group {group} must be a list of sets")
            if unknown := [str(name) for name in names if name not in CATALOGUE]:
                raise RecipeError(
                    f"{place}: there is no set {', '.join(unknown)}; there are"
                    f" {', '.join(CATALOGUE)}"
                )
    return value
