"""Measures one preset on one machine: what the machine can do at best, each stage against that
roof, whole answers of the engine beside the baselines, and the curves of cost."""

from __future__ import annotations

import gc
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import baselines
from benchmarks.presets import teach
from lisa_ros.engine import Engine, EngineConfig, MaskReady, Question
from lisa_ros.engine.decoder import ForwardBatch
from lisa_ros.engine.load import default_threads, multiplications
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.network import IMAGE_TOKEN
from lisa_ros.model.quantization import multiplies_natively

COPIED = {"cpu": 256 * 2**20, "cuda": 2 * 2**30}  # bytes, far beyond any cache
TRIES = 7
SQUARE = {"cpu": 1536, "cuda": 8192}  # side of the matrices that are multiplied


@dataclass(frozen=True)
class Machine:
    """One device in one precision."""

    name: str
    torch: str
    threads: int
    dtype: str
    copy_bandwidth: float
    """bytes per second, read and written ones together"""
    matmul_rate: float
    """operations per second in a product of large square matrices"""
    load: float
    """the system's load average of the last minute, when the measurement began"""


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of one run, with everything that was launched finished."""
    synchronize(device)
    begin = perf_counter()
    work()
    synchronize(device)
    return perf_counter() - begin


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def measure_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """Measure the two rates; the best of some tries is what the machine can do."""
    size = COPIED[device.type]
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    side = SQUARE[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    copying = min(seconds(lambda: target.copy_(source), device) for _ in range(TRIES))
    multiplying = min(seconds(lambda: a @ b, device) for _ in range(TRIES))
    return Machine(
        name=_name(device),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        dtype=str(dtype).removeprefix("torch."),
        copy_bandwidth=2 * size / copying,
        matmul_rate=2 * side**3 / multiplying,
        load=os.getloadavg()[0],
    )


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


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
class StageCost:
    """One stage for one question about one frame."""

    name: str
    ms: float
    flop: float
    """operations, counted by torch"""
    bytes: float
    """weights, keys and values that must be read at least once"""

    def bound_ms(self, machine: Machine) -> float:
        """The least time on a machine: its arithmetic or its memory, whichever takes longer."""
        return 1000 * max(self.flop / machine.matmul_rate, self.bytes / machine.copy_bandwidth)


@torch.inference_mode()
def measure_stages(engine: Engine, image: np.ndarray, prompt: list[int]) -> list[StageCost]:
    """Time and count all stages of an engine; nothing runs beside them."""
    network, processor, decoder = engine.network, engine.lisa.processor, engine.decoder
    device = engine.device
    clip = processor.clip_pixels(image)[None].to(device)
    pixels = processor.sam_pixels(image)
    view, frame = network.encode_view(clip)[0], network.encode_frame(pixels[None].to(device))
    embeds = network.embed_prompt(torch.tensor(prompt, device=device), view)[None]
    behind = len(prompt) - prompt.index(IMAGE_TOKEN) - 1
    length = embeds.shape[1]
    decoder.cache.ensure_capacity(1, length + 1)

    def masks() -> Tensor:
        prompts = network.seg_embeddings(embeds[0, -1:])[None]
        low_res, _ = network.decode_masks(frame, prompts)
        return processor.full_size_masks(low_res[0], image.shape[:2]) > 0

    def step() -> Tensor:
        return decoder.head(decoder.forward(ForwardBatch(embeds[:, -1:], [length])))

    layers = _bytes(network.language_model.layers.parameters())
    position = decoder.cache.data[:, :, 0, :, 0].nbytes
    head = _bytes(network.lm_head.parameters())
    work: list[tuple[str, Callable[[], object], Callable[[], object], float]] = [
        (
            "CLIP",
            lambda: engine.vision.clip_encoder(clip),
            lambda: network.encode_view(clip),
            _weights(network.vision_tower, network.mm_projector),
        ),
        (
            "SAM encoder",
            lambda: engine.vision.sam_encoder(pixels[None].to(device)),
            lambda: network.encode_frame(pixels[None].to(device)),
            _weights(network.image_encoder),
        ),
        (
            f"whole prompt, {length} positions",
            lambda: decoder.forward(ForwardBatch(embeds, [0])),
            lambda: network.language_model(inputs_embeds=embeds, use_cache=False),
            layers,
        ),
        (
            f"question behind the image, {behind} positions",
            lambda: decoder.forward(ForwardBatch(embeds[:, -behind:], [length - behind])),
            lambda: network.language_model(inputs_embeds=embeds[:, -behind:], use_cache=False),
            layers + position * length,
        ),
        (
            "one more token",
            step,
            lambda: network.lm_head(
                network.language_model(
                    inputs_embeds=embeds[:, -1:], use_cache=False
                ).last_hidden_state
            ),
            layers + head + position * length,
        ),
        ("mask", masks, masks, _weights(network.mask_decoder, network.text_hidden_fcs)),
    ]
    return [
        StageCost(name, _median_ms(run, device), count_flop(counted), size)
        for name, run, counted, size in work
    ]


def _median_ms(run: Callable[[], object], device: torch.device) -> float:
    run()
    return 1000 * median(seconds(run, device) for _ in range(TRIES))


def count_flop(run: Callable[[], object]) -> float:
    """Operations of a run, counted by torch; its counter misses a processor's fused attention."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def _weights(*modules: nn.Module) -> float:
    return _bytes(p for module in modules for p in module.parameters())


def _bytes(tensors: Iterable[Tensor]) -> float:
    return float(sum(t.nbytes for t in tensors))


HEIGHT, WIDTH = 480, 640
SEG_PLACE = 5  # [SEG] is the sixth token of every answer
INSTRUCTION = "the red mug"
TEMPLATE = "Sure, it is [SEG]."
PATIENCE = 20.0  # seconds that the repetitions of one case may take
NTH = (1, 2, 3, 5, 10, 20, 50, 100)
NEIGHBOURS = (0, 1, 2)
ROUNDS_BESIDE = 31  # a median that a time slice of the scheduler does not decide
SPIN = "while True: pass"


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


def _picture(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def _peak_memory(device: torch.device) -> float:
    """Megabytes: of the GPU where there is one, else of the process."""
    gc.collect()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
