"""The paper's headline at nano's scale: what a few implicit questions teach a model that met none.

LISA (Lai et al., arXiv 2308.00692) rises from 44.4 to 52.9 gIoU by fine-tuning on 239 implicit
questions, beyond systems of two stages. Here a nano is trained without implicit questions, then
fine-tuned on 239, with three seeds, each with questions and tables of its own:

    python -m benchmarks.implicit_questions --run runs/nano --folder runs/headline

`--run` is a run of `train-nano`, whose scenes, tokenizer, SAM and vision tower are used. A
second start goes on where the first one stopped.

The paper's two-stage baselines let a language model name the thing and a segmenter find the name.
Here a classifier of the instruction's word pieces, trained on the same texts as the fine-tuned
model, names the kind; then a model that obeys plain names is asked for it. Neither is told what is
in the image.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional

from lisa_ros.engine import Answer, Engine
from lisa_ros.errors import LisaError
from lisa_ros.evaluation.evaluate import Sample, evaluate, figures, measure
from lisa_ros.evaluation.reasonseg import Item, read_dataset
from lisa_ros.model.checkpoint import CONFIG_FILE, load
from lisa_ros.model.tokenizer import Tokenizer
from lisa_ros.text_tables import markdown_table
from lisa_ros.training.recipe import finetune
from lisa_ros.writing import write_file
from lisa_tabletop.evaluation.fixed_test_set import drawn_once, implicit_questions
from lisa_tabletop.language.curriculum import IMPLICIT
from lisa_tabletop.training import run_nano

SEEDS = (0, 1, 2)
SHARED = (
    "scenes",
    "tokenizer",
    "pretrain_sam.pt",
    "pretrain_vision_tower.pt",
)  # of the run that is built on
SPLITS = ("test-seen", "test-phrases")
TRIES = (1, 3)  # kinds that the two stages look for, one after the other
STEPS, RATE, DECAY = 300, 0.1, 0.02  # of the classifier of kinds
PLAIN = "Please segment the {}."
COLUMNS = {
    "implicit": ("giou", "ciou", "named", "false_refusals"),
    "unseen phrases": ("giou", "ciou"),
    "plain": ("giou",),
}
SETTINGS = ("read_steps", "join_steps", "questions", "steps", "rate")
Result = dict  # system, seed (None: there is one only), figures by group of questions


class KindClassifier:
    """Multinomial logistic regression on which pieces an instruction holds."""

    def __init__(self, tokenizer: Tokenizer, items: Sequence[Item]) -> None:
        """Learn from simulated questions; where several kinds are meant each gets its share."""
        self.tokenizer = tokenizer
        meant = [[one["name"] for one in item.ours["targets"]] for item in items]
        self.names = sorted({name for names in meant for name in names})
        column = {name: index for index, name in enumerate(self.names)}
        wanted = torch.zeros(len(items), len(self.names))
        for row, names in enumerate(meant):
            for name in names:
                wanted[row, column[name]] += 1 / len(names)
        self.weight = torch.zeros(tokenizer.size, len(self.names), requires_grad=True)
        self.bias = torch.zeros(len(self.names), requires_grad=True)
        self._fit(torch.stack([self._features(item.instruction) for item in items]), wanted)

    def _fit(self, features: Tensor, wanted: Tensor) -> None:
        optimizer = torch.optim.AdamW([self.weight, self.bias], lr=RATE, weight_decay=DECAY)
        for _ in range(STEPS):
            loss = functional.cross_entropy(features @ self.weight + self.bias, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _features(self, text: str) -> Tensor:
        """Which pieces occur, as a vector (pieces,) of length 1."""
        pieces = torch.zeros(self.tokenizer.size)
        pieces[self.tokenizer.encode(text.lower())] = 1
        return functional.normalize(pieces, dim=0)

    @torch.no_grad()
    def ranked(self, text: str) -> list[str]:
        """The names of all kinds, the likeliest first."""
        order = (self._features(text) @ self.weight + self.bias).argsort(descending=True)
        return [self.names[index] for index in order.tolist()]


def answer_in_two_stages(
    engine: Engine, classifier: KindClassifier, item: Item, tries: int
) -> Answer:
    """Ask plainly for the likeliest kind, and for the next one where the detector finds none."""
    for name in classifier.ranked(item.instruction)[:tries]:
        answer = engine.segment(item.rgb(), PLAIN.format(name), key=item.scene)
        if answer.instances:
            break
    return answer


def train_base(args: argparse.Namespace) -> Path:
    """The model that never met an implicit question; returns its checkpoint."""
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        if not (args.folder / name).exists():
            (args.folder / name).symlink_to((args.run / name).resolve())
    checkpoint = args.folder / "checkpoint"
    if not (checkpoint / CONFIG_FILE).exists():
        run_nano.train_nano(
            argparse.Namespace(
                folder=args.folder,
                seed=0,
                stages=("pretrain_language", "train_joint"),
                steps={"pretrain_language": args.read_steps, "train_joint": args.join_steps},
                minutes=None,
                tables=None,
                first_table=0,
                without_implicit=True,
                init=None,
                device="auto",
                threads=args.threads,
            )
        )
    return checkpoint


def items_of_test_set(dataset: Path) -> dict[str, list[Item]]:
    """The test questions by group; `implicit` holds those in unseen phrases, too."""
    items = [item for item in read_dataset(dataset) if item.split in SPLITS]
    implicit = [item for item in items if item.kind in IMPLICIT]
    unseen = [item for item in implicit if item.split == "test-phrases"]
    return {
        "implicit": implicit,
        "unseen phrases": unseen,
        "plain": [item for item in items if item.kind == "plain" and item.split == "test-seen"],
    }


def figures_by_group(samples: Sequence[Sample], groups: dict[str, list[Item]]) -> dict[str, dict]:
    """The figures of the groups that have been asked in full."""
    of = {sample.item.image: sample for sample in samples}
    return {
        name: figures([of[item.image] for item in items])
        for name, items in groups.items()
        if items and all(item.image in of for item in items)
    }


def rows(args: argparse.Namespace, base: Path, groups: dict[str, list[Item]]) -> Iterator[Result]:
    """Measure every system, those of `results.json` excepted."""
    known = {(row["system"], row["seed"]) for row in _read(args.folder)}

    def missing(system: str, seed: int | None) -> bool:
        return (system, seed) not in known

    asked = [*groups["implicit"], *groups["plain"]]
    if missing("before", None):
        yield _result("before", None, _ask_model(base, asked, "before"), groups)
    for seed in SEEDS:
        lessons = implicit_questions(args.folder / f"questions-{seed}", args.questions, seed)
        if missing("fine-tuned", seed):
            tuned = _tune(args, base, lessons, seed)
            samples = _ask_model(tuned, asked, f"fine-tuned, seed {seed}")
            yield _result("fine-tuned", seed, samples, groups)
        classifier = KindClassifier(load(base).tokenizer, lessons)
        for tries in TRIES:
            system = f"two stages, kinds looked for: {tries}"
            if missing(system, seed):
                samples = _ask_two_stages(base, classifier, groups["implicit"], tries)
                yield _result(system, seed, samples, groups)


def _result(system: str, seed: int | None, samples: list[Sample], groups: dict) -> Result:
    return {"system": system, "seed": seed, "figures": figures_by_group(samples, groups)}


def _tune(args: argparse.Namespace, base: Path, lessons: list[Item], seed: int) -> Path:
    folder = args.folder / f"finetuned-{seed}"
    if not (folder / CONFIG_FILE).exists():
        finetune(load(base), lessons, folder, steps=args.steps, lr=args.rate, seed=seed)
    return folder


def _ask_model(model: Path, items: list[Item], name: str) -> list[Sample]:
    engine = Engine(load(model))
    with Progress(transient=True) as progress:
        answered = progress.track(evaluate(engine, items), len(items), description=name)
        return [sample for sample, _ in answered]


def _ask_two_stages(
    base: Path, classifier: KindClassifier, items: list[Item], tries: int
) -> list[Sample]:
    engine = Engine(load(base))
    with Progress(transient=True) as progress:
        return [
            measure(item, answer_in_two_stages(engine, classifier, item, tries))
            for item in progress.track(items, description=f"two stages, {tries}")
        ]


def table(results: Sequence[Result]) -> str:
    """The results in Markdown: means over the seeds, with the lowest and the highest."""
    heads = [f"{group} {name}" for group, names in COLUMNS.items() for name in names]
    lines = []
    for system in dict.fromkeys(row["system"] for row in results):
        runs = [row["figures"] for row in results if row["system"] == system]
        cells = [
            _cell([run[group][name] for run in runs if group in run])
            for group, names in COLUMNS.items()
            for name in names
        ]
        lines.append([system, *cells])
    return markdown_table(["system", *heads], lines)


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{sum(known) / len(known):.3f}"
    return mean if len(known) == 1 else f"{mean} ({min(known):.3f}–{max(known):.3f})"


def _read(folder: Path) -> list[Result]:
    path = folder / "results.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def _store(folder: Path, results: list[Result], settings: dict) -> None:
    content = json.dumps({"settings": settings, "rows": results}, indent=2)
    write_file(folder / "results.json", content + "\n")
    write_file(folder / "results.md", table(results) + "\n")


def run(args: argparse.Namespace) -> None:
    """The whole experiment."""
    if missing := [name for name in SHARED if not (args.run / name).exists()]:
        raise LisaError(f"{args.run} has no {missing[0]}; --run names a folder of `train-nano`")
    torch.set_num_threads(args.threads)
    dataset = args.dataset or drawn_once("benchmark")
    base = train_base(args)
    groups = items_of_test_set(dataset)
    settings = {n: getattr(args, n) for n in SETTINGS}
    settings["asked"] = {name: len(items) for name, items in groups.items()}
    results = _read(args.folder)
    for row in rows(args, base, groups):
        results.append(row)
        _store(args.folder, results, settings)
        print(f"{row['system']}, seed {row['seed']}: {row['figures']['implicit']}")
    print(table(results))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of the experiment."""
    parser = argparse.ArgumentParser(prog="benchmarks.implicit_questions", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of `train-nano`")
    parser.add_argument("--folder", type=Path, default=Path("runs/headline"))
    parser.add_argument("--dataset", type=Path, help="test set (default: the fixed one)")
    parser.add_argument("--read-steps", type=int, default=700)
    parser.add_argument("--join-steps", type=int, default=150)
    parser.add_argument("--questions", type=int, default=239)
    parser.add_argument("--steps", type=int, default=300, help="of fine-tuning, 8 questions each")
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    try:
        run(parser.parse_args(argv))
    except LisaError as error:
        print(f"headline: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
