"""Measures one preset: schedules side by side, stages against the roof, curves of cost."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import numpy as np
import torch

from benchmarks import baselines
from benchmarks.machine import synchronize
from benchmarks.presets import teach
from benchmarks.stages import Stage, measure_stages
from lisa_ros.engine import Engine, EngineConfig, MaskReady, Question
from lisa_ros.model.checkpoint import Lisa

HEIGHT, WIDTH = 480, 640
SEG_PLACE = 5  # [SEG] is the sixth token of every answer
INSTRUCTION = "the red mug"
TEMPLATE = "Sure, it is [SEG]."
PATIENCE = 20.0  # seconds that the repetitions of one case may take
NTH = (1, 2, 3, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Timing:
    """One case: medians over its repetitions, in milliseconds since the question."""

    case: str
    tokens: int
    mask_ms: float
    answer_ms: float
    forwards: int


@dataclass
class Measurements:
    """Everything that was measured of one preset."""

    preset: str
    parameters: int
    timings: list[Timing] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    questions: list[dict[str, float]] = field(default_factory=list)
    """count, together_ms, one_by_one_ms: questions about one known frame"""
    frames: list[dict[str, float]] = field(default_factory=list)
    """count, together_ms, one_by_one_ms: a question each about so many new frames"""
    nth: list[dict[str, float]] = field(default_factory=list)
    """number, answer_ms: the n-th question about one frame, of which the first encodes it"""
    memory_mb: float = 0.0


def measure_preset(lisa: Lisa, lengths: Sequence[int], rounds: int) -> Measurements:
    """Run everything; what is being measured is told on stderr."""

    def report(what: str) -> None:
        print(f"{lisa.config.name}: {what}", file=sys.stderr, flush=True)

    parameters = sum(p.numel() for p in lisa.network.parameters())
    results = Measurements(lisa.config.name, parameters)
    bench = _Bench(lisa, rounds)
    report("stages")
    results.stages = measure_stages(bench.plain, bench.image, bench.prompt)
    for length in lengths:
        report(f"answers of {length} tokens")
        results.timings += bench.schedules(length)
    report("templated answer, mask mode")
    results.timings += bench.one_pass_answers()
    report("several questions, several frames, the n-th question")
    bench.say(20)
    results.questions = [bench.batch(count, new=False) for count in (1, 4, 16)]
    results.frames = [bench.batch(count, new=True) for count in (1, 4, 8)]
    bench.say(8)
    results.nth = bench.nth_question()
    results.memory_mb = _peak_memory(bench.plain.device)
    return results


class _Bench:
    """One model with the engines and the question that all cases share."""

    def __init__(self, lisa: Lisa, rounds: int) -> None:
        self.lisa, self.rounds = lisa, rounds
        self.plain = Engine(lisa, EngineConfig(draft_tokens=0))
        self.drafting = Engine(lisa)
        self.image = _picture(0)
        self.prompt = self.plain.prompts.ids(Question(self.image, INSTRUCTION))
        self.length = 0

    def say(self, length: int) -> list[int]:
        """Let the model answer `length` tokens, one of them `[SEG]`, and no end."""
        special = {self.lisa.tokenizer.seg_id, self.prompt[-1], *range(3)}
        ids = [i for i in range(self.lisa.tokenizer.size) if i not in special][:length]
        if len(ids) < length:
            raise ValueError(f"answers of {length} tokens are longer than the vocabulary")
        ids[SEG_PLACE] = self.lisa.tokenizer.seg_id
        teach(self.lisa, ids)
        self.length = length
        return ids

    def schedules(self, length: int) -> list[Timing]:
        """The same answer by both baselines and by the engine, in turns."""
        ids = self.say(length)
        cases = {
            "reference schedule": lambda: self._baseline(baselines.reference, ids),
            "transformers generate": lambda: self._baseline(baselines.library, ids),
            "engine, new frame": lambda: self._asked(self.plain, None),
            "engine, known frame": lambda: self._asked(self.plain, "known"),
            "engine, standing question": lambda: self._asked(self.drafting, "known"),
        }
        return self._in_turns(cases, length)

    def one_pass_answers(self) -> list[Timing]:
        """Answers that one pass can hold: a template, and mask mode."""
        engine, timings = self.drafting, []
        for name, text, mode in (("template", TEMPLATE, "auto"), ("mask mode", "[SEG].", "mask")):
            ids = engine.prompts.answer(text)
            teach(self.lisa, [*ids, self.lisa.tokenizer.eos_id])
            self.length = len(ids) + 1
            cases = {
                f"engine, {name}, new frame": lambda m=mode: self._asked(engine, None, m),
                f"engine, {name}, known frame": lambda m=mode: self._asked(engine, "known", m),
            }
            timings += self._in_turns(cases, self.length)
        return timings

    def _in_turns(self, cases: dict[str, Callable[[], _Run]], length: int) -> list[Timing]:
        """Run all cases in every round, so that a busy moment of the machine hits all of them."""
        runs: dict[str, list[_Run]] = {name: [] for name in cases}
        spent = dict.fromkeys(cases, 0.0)
        for name, run in cases.items():  # caches, buffers, graphs
            if "reference" not in name:
                run()
        for _ in range(self.rounds):
            for name, run in cases.items():
                if spent[name] < PATIENCE:
                    runs[name].append(run())
                    spent[name] += runs[name][-1].answer / 1000
        return [
            Timing(
                name,
                length,
                median(run.mask for run in done),
                median(run.answer for run in done),
                done[-1].forwards,
            )
            for name, done in runs.items()
        ]

    def _baseline(self, schedule: baselines.Schedule, ids: list[int]) -> _Run:
        begin = perf_counter()
        outcome = schedule(self.lisa, self.image, self.prompt, self.length)
        synchronize(self.plain.device)
        elapsed = 1000 * (perf_counter() - begin)
        if outcome.ids != ids or len(outcome.masks) != 1:
            raise RuntimeError("the schedules disagree about the answer")
        return _Run(elapsed, elapsed, self.length)

    def _asked(self, engine: Engine, key: str | None, mode: str = "auto") -> _Run:
        begin, mask = perf_counter(), 0.0
        for event in engine.stream(
            self.image, INSTRUCTION, mode=mode, key=key, max_new_tokens=self.length
        ):
            if isinstance(event, MaskReady):
                mask = 1000 * (perf_counter() - begin)
            last = event
        counters = last.answer.counters
        if not mask or counters["tokens"] not in (0, self.length):
            raise RuntimeError("the engine gave another answer than it was taught")
        return _Run(mask, 1000 * (perf_counter() - begin), counters["forwards"])

    def batch(self, count: int, *, new: bool) -> dict[str, float]:
        """`count` questions together and one by one."""
        images = [_picture(n) for n in range(count)] if new else [self.image] * count
        questions = [
            Question(image, INSTRUCTION, key=None if new else "known", max_new_tokens=self.length)
            for image in images
        ]
        together = self._median(lambda: self.plain.segment_batch(questions))
        single = self._median(lambda: [self.plain.segment_batch([q]) for q in questions])
        return {"count": count, "together_ms": together, "one_by_one_ms": single}

    def _median(self, work: Callable[[], object]) -> float:
        work()
        times = []
        while len(times) < self.rounds and sum(times) < 1000 * PATIENCE:
            begin = perf_counter()
            work()
            times.append(1000 * (perf_counter() - begin))
        return median(times)

    def nth_question(self) -> list[dict[str, float]]:
        """The cost of the first question about a frame, the second, the hundredth."""
        frames = [
            [self._asked(self.plain, key).answer for _ in range(NTH[-1])]
            for key in ("first frame", "second frame")
        ]
        return [{"number": n, "answer_ms": min(times[n - 1] for times in frames)} for n in NTH]


@dataclass(frozen=True)
class _Run:
    mask: float
    answer: float
    forwards: int


def _picture(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def _peak_memory(device: torch.device) -> float:
    """Megabytes: of the GPU where there is one, else of the process."""
    gc.collect()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
