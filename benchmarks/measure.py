"""Measures one preset on one machine: whole answers of the engine beside two other ways to compute
them on the same weights, each stage against the machine's roof, and the curves of cost."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from benchmarks.presets import teach
from benchmarks.roofline import Machine, StageCost, measure_machine, measure_stages, synchronize
from lisa_ros.engine import Engine, EngineConfig, MaskReady, Question
from lisa_ros.engine.load import default_threads, multiplications
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.quantization import multiplies_natively

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

HEIGHT, WIDTH = 480, 640
SEG_PLACE = 5  # [SEG] is the sixth token of every answer
INSTRUCTION = "the red mug"
TEMPLATE = "Sure, it is [SEG]."
PATIENCE = 20.0  # seconds that the repetitions of one case may take
NTH = (1, 2, 3, 5, 10, 20, 50, 100)
NEIGHBOURS = (0, 1, 2)
ROUNDS_BESIDE = 31  # a median that a time slice of the scheduler does not decide
SPIN = "while True: pass"


@contextmanager
def busy_neighbours(count: int) -> Iterator[list[subprocess.Popen]]:
    """So many other processes, each of which takes all that it gets of a core."""
    spinning = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield spinning
    finally:
        for process in spinning:
            process.kill()
            process.wait()


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
    machine: Machine
    timings: list[Timing] = field(default_factory=list)
    stages: list[StageCost] = field(default_factory=list)
    questions: list[dict[str, float]] = field(default_factory=list)
    """count, together_ms, one_by_one_ms: questions about one known frame"""
    frames: list[dict[str, float]] = field(default_factory=list)
    """count, together_ms, one_by_one_ms: a question each about so many new frames"""
    nth: list[dict[str, float]] = field(default_factory=list)
    """number, answer_ms: the n-th question about one frame, of which the first encodes it"""
    neighbours: list[dict[str, float]] = field(default_factory=list)
    """count, mask_ms: mask mode on a known frame beside so many processes that keep a core busy"""
    memory_mb: float = 0.0


def measure_preset(
    lisa: Lisa, lengths: Sequence[int], rounds: int, threads: int | None = None
) -> Measurements:
    """Run everything; what is being measured is told on stderr.

    `threads`: of the processor; None: as many as the node takes for a model of this size.
    """

    def report(what: str) -> None:
        print(f"{lisa.config.name}: {what}", file=sys.stderr, flush=True)

    report("the machine")
    parameters = sum(p.numel() for p in lisa.network.parameters())
    torch.set_num_threads(threads or default_threads(multiplications(lisa)))
    weight = lisa.network.lm_head.weight
    natively = multiplies_natively(weight.dtype, weight.device)
    machine = measure_machine(weight.device, weight.dtype if natively else torch.float32)
    results = Measurements(lisa.config.name, parameters, machine)
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
    report("busy neighbours")
    results.neighbours = bench.beside_neighbours()
    results.memory_mb = _peak_memory(bench.plain.device)
    return results


class _Bench:
    """One model with the engines and the question that all cases share."""

    def __init__(self, lisa: Lisa, rounds: int) -> None:
        self.lisa, self.rounds = lisa, rounds
        self.reference = _in_one_precision(lisa)
        self.plain = Engine(lisa, EngineConfig(draft_tokens=0))
        self.drafting = Engine(lisa)
        self.image = _image(0)
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
            "reference schedule": lambda: self._baseline(reference, ids),
            "transformers generate": lambda: self._baseline(library, ids),
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

    def _baseline(self, schedule: Schedule, ids: list[int]) -> _Run:
        begin = perf_counter()
        outcome = schedule(self.reference, self.image, self.prompt, self.length)
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
        images = [_image(n) for n in range(count)] if new else [self.image] * count
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

    def beside_neighbours(self) -> list[dict[str, float]]:
        """Mask mode on a known frame while other processes want the cores, too."""
        ids = self.drafting.prompts.answer("[SEG].")
        teach(self.lisa, [*ids, self.lisa.tokenizer.eos_id])
        self.length = len(ids) + 1
        self._asked(self.drafting, "known", "mask")
        found = []
        for count in NEIGHBOURS:
            with busy_neighbours(count):
                runs = [self._asked(self.drafting, "known", "mask") for _ in range(ROUNDS_BESIDE)]
            found.append({"count": count, "mask_ms": median(run.mask for run in runs)})
        return found


@dataclass(frozen=True)
class _Run:
    mask: float
    answer: float
    forwards: int


def _in_one_precision(lisa: Lisa) -> Lisa:
    """The model for the baselines, which take SAM in the precision of the other parts."""
    network = lisa.network
    if network.image_encoder.patch_embed.projection.weight.dtype == network.dtype:
        return lisa
    whole = copy(network)
    whole._modules = {**network._modules}  # all other parts are shared, what `teach` changes too
    whole.image_encoder = deepcopy(network.image_encoder).to(network.dtype)
    return replace(lisa, network=whole)


def _image(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def _peak_memory(device: torch.device) -> float:
    """Megabytes: of the GPU where there is one, else of the process."""
    gc.collect()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# the other ways


@dataclass
class ScheduleResult:
    """What a schedule gave: the same for all of them."""

    ids: list[int]
    masks: Tensor
    """(N, H, W) logits at the size of the image"""


Schedule = Callable[[Lisa, np.ndarray, list[int], int], ScheduleResult]


@torch.inference_mode()
def reference(lisa: Lisa, image: np.ndarray, prompt: list[int], count: int) -> ScheduleResult:
    """The schedule of the reference implementation of LISA.

    For every token CLIP and the whole sequence are computed anew, with the logits of all positions;
    SAM's encoder runs when the text is finished, and the masks come last.
    """
    network, device = lisa.network, lisa.network.lm_head.weight.device
    pixels = lisa.processor.clip_pixels(image)[None].to(device)
    ids = torch.tensor(prompt, device=device)
    for _ in range(count):
        view = network.encode_view(pixels)[0]
        embeds = network.embed_prompt(ids, view)[None]
        states = network.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        best = network.lm_head(states)[0, -1].argmax()
        ids = torch.cat([ids, best[None]])
    new = ids[len(prompt) :].tolist()
    seg = [i for i, token in enumerate(new) if token == lisa.tokenizer.seg_id]
    predicting = states[0, [states.shape[1] - count + i for i in seg]]
    return ScheduleResult(new, _masks(lisa, image, predicting))


@torch.inference_mode()
def library(lisa: Lisa, image: np.ndarray, prompt: list[int], count: int) -> ScheduleResult:
    """transformers' own `generate` with its key and value cache; SAM and masks after the text."""
    network, device = lisa.network, lisa.network.lm_head.weight.device
    pixels = lisa.processor.clip_pixels(image)[None].to(device)
    embeds = network.embed_prompt(
        torch.tensor(prompt, device=device), network.encode_view(pixels)[0]
    )
    output = _causal(lisa).generate(
        inputs_embeds=embeds[None],
        attention_mask=torch.ones(1, len(embeds), dtype=torch.long, device=device),
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        use_cache=True,
        output_hidden_states=True,
        return_dict_in_generate=True,
        pad_token_id=0,
    )
    new = output.sequences[0].tolist()
    seg = [i for i, token in enumerate(new) if token == lisa.tokenizer.seg_id]
    states = [output.hidden_states[i][-1][0, -1] for i in seg]
    return ScheduleResult(new, _masks(lisa, image, torch.stack(states)))


def _causal(lisa: Lisa) -> LlamaForCausalLM:
    """transformers' generating class around the network's own modules."""
    from transformers import LlamaForCausalLM  # behind lisa_ros.model, which keeps it quiet

    with torch.device("meta"):
        model = LlamaForCausalLM(lisa.network.language_model.config)
    model.model, model.lm_head = lisa.network.language_model, lisa.network.lm_head
    return model.eval()


def _masks(lisa: Lisa, image: np.ndarray, states: Tensor) -> Tensor:
    network, processor = lisa.network, lisa.processor
    pixels = processor.sam_pixels(image)
    frame = network.encode_frame(pixels[None].to(states.device))
    low_res, _ = network.decode_masks(frame, network.seg_embeddings(states)[None])
    return processor.full_size_masks(low_res[0], image.shape[:2])
