"""The engine: asks a LISA about images. Encode once, ask many times, hand over masks early."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lisa_ros.engine.answer import Answer, Event, Finished, MaskReady, TextDelta
from lisa_ros.engine.clock import Clock
from lisa_ros.engine.config import EngineConfig
from lisa_ros.engine.decoder import Chunk, Decoder
from lisa_ros.engine.frames import Frame, FrameCache, check_image
from lisa_ros.engine.generation import Limits, Row, Step, generate
from lisa_ros.engine.image_features import Vision
from lisa_ros.engine.prompting import Prompts
from lisa_ros.engine.question import Mode, Question, check_question
from lisa_ros.engine.request_state import Ask, unasked
from lisa_ros.engine.speculative import DraftMemory
from lisa_ros.engine.stopping import Cancel, Stop
from lisa_ros.errors import InstructionError
from lisa_ros.model.checkpoint import Lisa

REPEATS = 24  # tokens in circles after which an answer is stopped
WARM_WIDTHS = (1, 32, 64, 96, 128, 160)  # tokens in a pass: steps, questions, drafts
SHORTEST_ANSWER = 16  # positions that a prompt must leave for the answer


DEFAULTS = EngineConfig()


class Engine:
    """Answers questions about images with one model, one caller at a time."""

    def __init__(self, lisa: Lisa, config: EngineConfig = DEFAULTS) -> None:
        """Take over a loaded model, which is switched to inference.

        An engine keeps copies and tables of some weights: after training on, make a new one.
        """
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.lisa, self.config = lisa, config
        self.network = lisa.network.eval()
        self.decoder = Decoder(self.network.language_model, self.network.lm_head)
        self.vision = Vision(lisa, config.clip_view or lisa.config.clip_view)
        self.device = self.decoder.device
        self.frames = FrameCache(config.cache_bytes)
        self.prompts = Prompts(lisa)
        self.prefix_length = len(self.prompts.prefix) - 1 + lisa.config.image_tokens
        self.memory = DraftMemory(self.prompts.known_answers())
        self.limits = Limits(
            eos_id=lisa.tokenizer.eos_id,
            seg_id=lisa.tokenizer.seg_id,
            draft_tokens=config.draft_tokens,
            max_masks=config.max_masks,
            repeats=REPEATS,
        )

    def segment(
        self,
        image: np.ndarray,
        instruction: str,
        *,
        mode: Mode = "auto",
        history: Sequence[tuple[str, str]] = (),
        key: Hashable | None = None,
        cancel: Cancel | None = None,
        max_new_tokens: int | None = None,
        deadline: float | None = None,
    ) -> Answer:
        """Answer one instruction; see `Question` for the first arguments.

        `cancel`: an object with `is_set()`, asked between the passes. `deadline`: a time of
        `time.monotonic()`; what there is by then is the answer. Raises `ImageError` and
        `InstructionError` for what cannot be asked.
        """
        question = Question(image, instruction, mode, history, key, max_new_tokens)
        return self.segment_batch([question], cancel=cancel, deadline=deadline)[0]

    def stream(
        self,
        image: np.ndarray,
        instruction: str,
        *,
        mode: Mode = "auto",
        history: Sequence[tuple[str, str]] = (),
        key: Hashable | None = None,
        cancel: Cancel | None = None,
        max_new_tokens: int | None = None,
        deadline: float | None = None,
    ) -> Iterator[Event]:
        """As `segment`, but as events while they happen; the last one is `Finished`."""
        question = Question(image, instruction, mode, history, key, max_new_tokens)
        for _, event in self.stream_batch([question], cancel=cancel, deadline=deadline):
            yield event

    def segment_batch(
        self,
        questions: Sequence[Question],
        *,
        cancel: Cancel | None = None,
        deadline: float | None = None,
    ) -> list[Answer]:
        """Answer several questions together, about one frame or several; answers in their order.

        The answers equal those of asking one by one. Timings are those of the whole batch.
        """
        answers: dict[int, Answer] = {}
        for index, event in self.stream_batch(questions, cancel=cancel, deadline=deadline):
            if isinstance(event, Finished):
                answers[index] = event.answer
        return [answers[index] for index in range(len(questions))]

    @torch.inference_mode()
    def stream_batch(
        self,
        questions: Sequence[Question],
        *,
        cancel: Cancel | None = None,
        deadline: float | None = None,
    ) -> Iterator[tuple[int, Event]]:
        """The events of several questions, each with the index of its question."""
        for question in questions:
            check_image(question.image)
            check_question(question)
        clock, stop = Clock(self.device), Stop(cancel, deadline)
        reason = stop()
        if reason or not questions:
            yield from ((index, Finished(unasked(reason))) for index in range(len(questions)))
            return
        try:
            groups = self._open(questions, clock)
            single = all(len(group) == 1 for group in groups)
            asks = [ask for group in groups for ask in group]
            for ask, event in self._work(asks, clock, stop):
                if single:
                    yield asks.index(ask), event
            for index, group in enumerate(groups):
                best = _surest(group)
                if not single:
                    yield from ((index, event) for event in _replay(best))
                if best.row.stopped_by in ("end", "tokens"):
                    self.memory.remember(best.question, best.row.ids)
                yield index, Finished(best.answer(group, self.lisa.tokenizer, clock.timings()))
        finally:
            self.frames.trim()

    @torch.inference_mode()
    def prepare(self, image: np.ndarray, key: Hashable) -> None:
        """Encode a frame before it is asked about: SAM, CLIP and the prompt's beginning."""
        frame = self.frames.get(key, check_image(image).shape[:2])
        clock = Clock(self.device)
        if frame.sam is None:
            self.vision.encode_sam([frame], [image], clock)
        if not frame.views:
            self.vision.encode_views([frame], [image], clock)
        if not frame.prefixes:
            self._fill_prefixes([frame], clock)
        self.vision.join()
        self.frames.trim()

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Do now what only a first question pays for: buffers, kernels, on a GPU the graphs."""
        blank = np.zeros((480, 640, 3), np.uint8)
        self.segment(blank, "-", mode="mask")
        if self.device.type == "cuda":
            for tokens in WARM_WIDTHS:
                embeds = self.decoder.embed([0] * tokens)[None]
                self.decoder.forward(Chunk(embeds, [self.prefix_length]))

    def _open(self, questions: Sequence[Question], clock: Clock) -> list[list[Ask]]:
        """Encode what is new to the language model; one ask for every question and view."""
        frames = [self.frames.get(q.key, q.image.shape[:2]) for q in questions]
        first = {f: i for i, f in reversed(list(enumerate(frames))) if not f.views}
        if first:
            self.vision.encode_views(
                list(first), [questions[i].image for i in first.values()], clock
            )
        # one question about a new frame goes through in one pass, several share its beginning
        shared = [f for f, asked in Counter(frames).items() if asked > 1 and not f.prefixes]
        if shared:
            self._fill_prefixes(shared, clock)
        groups = [
            [self._ask(q, f, view) for view in range(len(f.views))]
            for q, f in zip(questions, frames, strict=True)
        ]
        for i in first.values():
            groups[i][0].clip_encodes = len(frames[i].views)
        return groups

    def _ask(self, question: Question, frame: Frame, view: int) -> Ask:
        row = self._row(question, frame, view)
        return Ask(question, frame, row, self.prompts.refusal, self.lisa.config.score_calibration)

    def _fill_prefixes(self, frames: Sequence[Frame], clock: Clock) -> None:
        """One pass over the part of the prompt that all questions about a frame share."""
        ids = torch.tensor(self.prompts.prefix, device=self.device)
        views = [view for frame in frames for view in frame.views]
        with clock.stage("prefill"):
            embeds = torch.stack([self.network.embed_prompt(ids, view) for view in views])
            rows, length = embeds.shape[:2]
            self.decoder.reserve(rows, length)
            self.decoder.forward(Chunk(embeds, [0] * rows))
            stored = iter([self.decoder.store_prefix(row, length) for row in range(rows)])
            for frame in frames:
                frame.prefixes = [next(stored) for _ in frame.views]

    def _row(self, question: Question, frame: Frame, view: int) -> Row:
        """Lay out the prompt about one view; what the frame holds of it is not fed again."""
        ids = self.prompts.ids(question)
        length = len(ids) - 1 + len(frame.views[view])
        room = self.decoder.max_positions - length
        if room < SHORTEST_ANSWER:
            raise InstructionError(
                f"the instruction is too long for this model: with image and history it takes "
                f"{length} of {self.decoder.max_positions} positions"
            )
        prefix = frame.prefixes[view] if frame.prefixes else None
        if prefix is None:
            every = torch.tensor(ids, device=self.device)
            pending = self.network.embed_prompt(every, frame.views[view])
        else:
            pending = self.decoder.embed(ids[len(self.prompts.prefix) :])
        row = Row(
            pending,
            length=length - len(pending),
            limit=min(question.max_new_tokens or self.config.max_new_tokens, room),
            prefix=prefix,
            drafts=self.memory.suggest(question),
            go_on=self.memory.go_on,
        )
        if question.mode == "mask" and not self.lisa.config.mask_instances:
            row.single_pass_unless = self.prompts.refusal
        return row

    def _work(self, asks: list[Ask], clock: Clock, stop: Stop) -> Iterator[tuple[Ask, Event]]:
        """Run the language model to the end of all answers, decoding masks as they come up."""
        wants_mask = [ask for ask in asks if ask.question.mode != "text"]
        if self.device.type == "cuda" and not stop():
            self._encode_sam(wants_mask, clock)  # runs beside the language model
        by_row = {ask.row: ask for ask in asks}
        passes = generate(self.decoder, [ask.row for ask in asks], self.limits, stop)
        stage = "prefill"
        while True:
            with clock.stage(stage):
                steps = next(passes, None)
                if steps and stage == "prefill":
                    self._keep_prefixes(asks)
            if steps is None:
                break
            todo = [(by_row[step.row], step) for step in steps]
            masks = self._decode_masks(todo, clock)
            for (ask, step), logits in zip(todo, masks, strict=True):
                for event in ask.events(self.lisa.tokenizer, step, logits):
                    if isinstance(event, MaskReady):
                        clock.mark("first_mask")
                    yield ask, event
            stage = "decode"
        for ask in asks:
            for event in ask.last_words(self.lisa.tokenizer):
                yield ask, event

    def _keep_prefixes(self, asks: list[Ask]) -> None:
        """After the first pass over whole prompts: keep the part that belongs to the frame."""
        kept: dict[Frame, list[Tensor]] = {}
        for place, ask in enumerate(asks):
            if ask.row.prefix is None and ask.question.key is not None:
                prefix = self.decoder.store_prefix(place, self.prefix_length)
                kept.setdefault(ask.frame, []).append(prefix)
        for frame, prefixes in kept.items():
            frame.prefixes = prefixes

    def _encode_sam(self, asks: Sequence[Ask], clock: Clock) -> None:
        """Run SAM's encoder over the frames that lack it, each once."""
        first = {ask.frame: ask for ask in reversed(asks) if ask.frame.sam is None}
        if first:
            images = [ask.question.image for ask in first.values()]
            self.vision.encode_sam(list(first), images, clock)
        for ask in first.values():
            ask.sam_encodes = 1

    def _decode_masks(self, todo: list[tuple[Ask, Step]], clock: Clock) -> list[dict[int, Tensor]]:
        """Full-size mask logits (H, W) for every ask, by the index of the state they come from."""
        places = [ask.seg_places(step, self.limits.seg_id) for ask, step in todo]
        masks: list[dict[int, Tensor]] = [{} for _ in todo]
        flat = [(n, place) for n, group in enumerate(places) for place in group]
        if flat:
            asks = [todo[n][0] for n, _ in flat]
            self._encode_sam(asks, clock)
            states = torch.stack([todo[n][1].states[place] for n, place in flat])
            found = self.vision.decode_masks([ask.frame for ask in asks], states, clock)
            for (n, place), logits in zip(flat, found, strict=True):
                masks[n][place] = logits
        return masks


def _surest(group: list[Ask]) -> Ask:
    """Of the views of one frame, the one whose `[SEG]` was most probable, else the middle one."""
    middle = group[len(group) // 2]
    best = max(group, key=lambda ask: max((i.seg_probability for i in ask.instances), default=0.0))
    return best if best.instances else middle


def _replay(ask: Ask) -> Iterator[Event]:
    """The events of an answer that was chosen after it was complete."""
    if ask.said:
        yield TextDelta(ask.said)
    for instance in ask.instances:
        yield MaskReady(instance)
