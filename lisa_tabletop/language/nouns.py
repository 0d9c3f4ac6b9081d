"""Words for physical things that no table of ours holds, so that "no" is learnt broadly.

English nouns, read from WordNet (Debian's `wordnet-base`) at training time, and uses that nothing
of ours has. Whole classes, every musical instrument, every bird, are never heard in training: of
those, unheard_nouns.txt holds what the test asks for. A machine without WordNet trains on the list
that `write_nouns` wrote on one that has it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import yaml

from lisa_ros.errors import LisaError
from lisa_ros.writing import write_file
from lisa_tabletop.language.knowledge import Pattern, load_knowledge

WORDNET = Path("/usr/share/wordnet")  # where Debian's wordnet-base puts it
HELD_OUT_NOUNS = Path(__file__).with_name("unheard_nouns.txt")
UNHEARD_WORDS = Path(__file__).with_name("unheard.yaml")

# Never heard in training, with everything below them; the first sense of each is meant.
HELD_OUT = (
    *("musical_instrument.1", "footwear.2", "headdress.1", "jewelry.1", "weapon.1", "bird.1"),
    *("furniture.1", "vessel.2", "aircraft.1", "insect.1", "flower.1", "cheese.1", "candy.1"),
    *("bedclothes.1", "sports_equipment.1", "optical_instrument.1", "medical_instrument.1"),
)
# WordNet's senses of our kinds. Their hypernyms, hyponyms and parts are no absent things.
_KINDS = (
    *("mug.4", "cup.1", "bottle.1", "bowl.1", "bowl.3", "plate.4", "can.1", "spoon.1", "fork.1"),
    *("table_knife.1", "knife.1", "apple.1", "banana.2", "carrot.1", "carrot.3", "pear.1"),
    *("hammer.2", "screwdriver.1", "scissors.1", "pencil.1", "book.1", "book.2", "adhesive_tape.1"),
    *("sponge.1", "candle.1", "telephone.1", "ball.1", "wrench.3", "flashlight.1", "paintbrush.1"),
    *("car.1", "clock.1", "bread.1", "stapler.1", "box.1", "crate.1", "tray.1"),
    *("jar.1", "pot.1", "saucepan.1", "teapot.1", "pan.1"),
    *("tableware.1", "cooking_utensil.1"),
)
# Classes of what is no thing that could be handed over, and words that the sentences themselves use
_NO_THINGS = (
    *("way.6", "facility.1", "system.1", "surface.1", "opening.1", "layer.1", "drug.1"),
    *("microorganism.1", "body_of_water.1", "region.3", "land.4", "location.1", "animal_group.1"),
    *("room.1", "area.5", "building_material.1", "creation.2", "excavation.3", "software.1"),
    "beverage.1",
)
_SAID = """
table desk floor wall camera image picture photo robot gripper hand arm eye friend kitchen thing
object item side front back corner middle centre row shape colour color red orange yellow green
blue purple white black grey brown wood metal plastic glass paper wax foam rubber ceramic food
fruit fruits vegetable tool toy dish dishes container cutlery drink meal dinner lunch breakfast
supper treat produce young down male female human humans man woman child baby people light lamp
match cover head base piece set pair pile lot kind total window torch spanner crate cup tape
cooking smartphone cellphone mobile loaf brush board house home art well plant fly bank must draw
cell work office school church shop street town city rest plan block model ring point drop edge
cut break care line list note help page spread slice top lid handle blade end part half rim spout
neck stem prong bristle wheel dial wick screen snack sandwich holder nut product structure agent
commodity merchandise addition load spoke dug
"""
# WordNet's files of nouns, and how often its glosses must say a noun of them
_CLASSES = {5: 2, 6: 1, 13: 1, 17: 8, 20: 4}  # animals, artifacts, food, natural objects, plants
_ENDINGS = re.compile(r"[^su]s$|(?<!str)(?<!spr)(?<!\bw)(?<!cloth)(?<!build)(?<!pudd)(?<!ceil)ing$")
_COUNTED_FOOD = ("edible_fruit.1", "vegetable.1", "nut.1", "sandwich.1", "egg.2", "cookie.1")
_UNCOUNTED = ("fabric.1", "substance.1", "paper.1")


class NounsError(LisaError):
    """The list of nouns, or WordNet, can't be read."""


@dataclass(frozen=True)
class Noun:
    """`plural` is empty where nobody counts the thing ("rice")."""

    name: str
    plural: str = ""


@dataclass(frozen=True)
class Vocabulary:
    """What is asked for in vain: nouns, the commonest first, and uses with their sentences."""

    nouns: Sequence[Noun]
    uses: Sequence[tuple[str, Sequence[Pattern]]]  # ("to iron a shirt with", ...)


@lru_cache(maxsize=1)
def held_out_vocabulary() -> Vocabulary:
    """What the test asks for and training never hears."""
    return Vocabulary(tuple(read_nouns(HELD_OUT_NOUNS)), _uses("test"))


@lru_cache(maxsize=2)
def training_vocabulary(nouns: Path | None = None) -> Vocabulary:
    """What training asks for: everyday things, and the nouns of the list at that path or WordNet's.

    Raises NounsError where neither can be read.
    """
    everyday = tuple(Noun(*entry.split("|")) for entry in _words()["everyday"].split(", "))
    found = read_nouns(nouns) if nouns else read_wordnet()[0]
    return Vocabulary(
        (*everyday, *(noun for noun in found if noun not in everyday)), _uses("train")
    )


@lru_cache(maxsize=1)
def _words() -> dict:
    return yaml.safe_load(UNHEARD_WORDS.read_text(encoding="utf-8"))


def _uses(split: str) -> tuple[tuple[str, tuple[Pattern, ...]], ...]:
    return tuple(
        (to, tuple(map(Pattern.parse, sentences)))
        for uses in _words()[split].values()
        for to, sentences in uses.items()
    )


def write_nouns(nouns: Iterable[Noun], path: Path) -> None:
    """One noun a line, "violin|violins", as `read_nouns` reads them."""
    write_file(path, "".join(f"{noun.name}|{noun.plural}\n" for noun in nouns))


def read_nouns(path: Path) -> Iterator[Noun]:
    """The nouns of a list; lines that begin with # are comments."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as fault:
        raise NounsError(f"The list of nouns {path} can't be read: {fault.strerror}.") from None
    for line in lines:
        if line and not line.startswith("#"):
            yield Noun(*line.split("|", 1))


def read_wordnet(folder: Path = WORDNET) -> tuple[list[Noun], list[Noun]]:
    """Nouns for physical things, the commonest first: those for training, those held out of it.

    A noun is one or two words of lower case whose first sense is a thing, common enough to be said
    (WordNet's own definitions are the text that this is counted in), and neither a kind of the
    tabletop nor its hypernym, hyponym or part.
    """
    wordnet = _WordNet(folder)
    kinds = wordnet.synsets_of(_KINDS)
    near = {offset for kind in kinds for offset in (*wordnet.above(kind), *wordnet.parts[kind])}
    never = {*_said_of_kinds(), *_SAID.split()}
    no_things, held_out = wordnet.synsets_of(_NO_THINGS), wordnet.synsets_of(HELD_OUT)
    uncounted, counted = wordnet.synsets_of(_UNCOUNTED), wordnet.synsets_of(_COUNTED_FOOD)
    found: tuple[list, list] = [], []
    for lemma, first, how_common in wordnet.lemmas():
        words = lemma.split("_")
        above = wordnet.above(first)
        is_thing = how_common >= _CLASSES.get(wordnet.lexfile[first], 1 << 30)
        if not is_thing or first in near or above & (kinds | no_things):
            continue
        # "there is no" doesn't go with trousers; a stopping is rather done than handed over
        if not never.isdisjoint((lemma, *words)) or _ENDINGS.search(lemma):
            continue
        mass = above & uncounted or (wordnet.lexfile[first] == 13 and not above & counted)
        noun = Noun(" ".join(words), "" if mass else wordnet.plural(lemma))
        found[bool(above & held_out)].append((how_common, noun))
    common, unheard = ([noun for _, noun in sorted(list_, key=_descending)] for list_ in found)
    secret = {
        word for noun in (*unheard, *read_nouns(HELD_OUT_NOUNS)) for word in noun.name.split()
    }
    return [noun for noun in common if secret.isdisjoint(noun.name.split())], unheard


def _descending(entry: tuple[int, Noun]) -> tuple[int, str]:
    return -entry[0], entry[1].name


def _said_of_kinds() -> set[str]:
    knowledge = load_knowledge()
    names = {name for kind in knowledge.kinds.values() for name in kind.names}
    return {word for name in names for word in name.split()} | {*knowledge.colors}


class _WordNet:
    """WordNet's nouns by synset (its offset in the file, a string)."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "data.noun").is_file():
            raise NounsError(
                f"There is no WordNet in {folder}: install Debian's wordnet-base, or give a list "
                "of nouns that was written where it is installed."
            )
        self.folder = folder
        self.words: dict[str, list[str]] = {}
        self.lexfile: dict[str, int] = {}
        self.hypernyms: dict[str, list[str]] = {}
        self.parts: dict[str, list[str]] = {}
        self.instances: set[str] = set()
        self._above: dict[str, frozenset[str]] = {}
        self.common: Counter = Counter()
        for part_of_speech in ("noun", "verb", "adj", "adv"):
            for line in self._lines(f"data.{part_of_speech}"):
                entry, _, gloss = line.partition("|")
                said = re.findall(r"[a-z]+(?:-[a-z]+)*", gloss.lower())
                self.common.update(said)
                self.common.update(pairwise(said))
                if part_of_speech == "noun":
                    self._add(entry.split())
        self.senses = {}
        for line in self._lines("index.noun"):
            lemma, _, count, *rest = line.split()
            self.senses[lemma] = rest[-int(count) :]
        # each word by how much oftener it is a noun than a verb or adjective
        self.nounness = Counter({line.split(" ", 1)[0]: -1 for line in self._lines("index.adj")})
        for line in self._lines("cntlist.rev"):
            sense, _, count = line.split()
            lemma, _, rest = sense.partition("%")
            self.nounness[lemma] += int(count) if rest[0] == "1" else -int(count)
        lines = (folder / "noun.exc").read_text(encoding="utf-8").splitlines()
        self.irregular = {one: many for many, one, *_ in map(str.split, reversed(lines))}

    def _lines(self, name: str) -> Iterator[str]:
        with (self.folder / name).open(encoding="utf-8") as file:
            yield from (line for line in file if not line.startswith("  "))

    def _add(self, fields: list[str]) -> None:
        offset, count = fields[0], int(fields[3], 16)
        pointers = fields[5 + 2 * count :]  # symbol, offset, part of speech, words: four each
        by_symbol: dict[str, list[str]] = {}
        for symbol, target in zip(pointers[::4], pointers[1::4], strict=False):
            by_symbol.setdefault(symbol, []).append(target)
        self.lexfile[offset] = int(fields[1])
        self.words[offset] = fields[4 : 4 + 2 * count : 2]
        self.hypernyms[offset] = by_symbol.get("@", [])
        self.parts[offset] = by_symbol.get("%p", [])
        if "@i" in by_symbol:
            self.instances.add(offset)

    def synsets_of(self, names: Iterable[str]) -> set[str]:
        """'can.1' is the first sense of "can"."""
        pairs = (name.split(".") for name in names)
        return {self.senses[lemma][int(number) - 1] for lemma, number in pairs}

    def above(self, synset: str) -> frozenset[str]:
        """A synset and all its hypernyms."""
        if synset not in self._above:
            higher = (self.above(other) for other in self.hypernyms[synset])
            self._above[synset] = frozenset({synset}.union(*higher))
        return self._above[synset]

    def lemmas(self) -> Iterator[tuple[str, str, int]]:
        """One or two words of lower case, their first sense, and how often glosses say them."""
        for lemma, synsets in self.senses.items():
            first = synsets[0]
            # where the synset has it otherwise, it is a name, with a capital
            if (
                lemma not in self.words[first]
                or first in self.instances
                or self.nounness[lemma] < 0
            ):
                continue
            if re.fullmatch(r"[a-z]{3,}(_[a-z]{2,})?", lemma):
                words = tuple(lemma.split("_"))
                if len(words) == 2 and self.nounness[words[0]] < 0:
                    continue  # no "small boat"
                yield lemma, first, self.common[words if len(words) == 2 else lemma]

    def plural(self, lemma: str) -> str:
        *before, head = lemma.split("_")
        regular = head + ("es" if re.search(r"([sxz]|ch|sh)$", head) else "s")
        if re.search(r"[^aeiou]y$", head):
            regular = head[:-1] + "ies"
        return " ".join((*before, self.irregular.get(head, regular)))
