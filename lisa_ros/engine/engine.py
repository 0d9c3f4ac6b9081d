"""The engine: asks a LISA about images. Encode once, ask many times, hand over masks early."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lisa_ros.engine.answer import Answer, Event, Finished, MaskReady, TextDelta
from lisa_ros.engine.decoder import Decoder, ForwardBatch
from lisa_ros.engine.generation import Step, StoppingCriteria, generate
from lisa_ros.engine.image_features import ImageFeatureCache, ImageFeatures, StageTimer, Vision
from lisa_ros.engine.question import (
    DEFAULTS,
    AskOptions,
    Cancel,
    EngineConfig,
    Interruption,
    Prompts,
    Question,
    check_image,
    check_question,
)
from lisa_ros.engine.request_state import RequestState, aborted_answer
from lisa_ros.engine.speculative import NGramDrafter
from lisa_ros.errors import BusyError, InstructionError
from lisa_ros.model.checkpoint import Lisa

if TYPE_CHECKING:
    from typing_extensions import Unpack

WARM_WIDTHS = (1, 32, 64, 96, 128, 160)  # tokens in a pass: steps, questions, drafts
WARM_UP_TOKENS = 8  # of the answer that nobody reads
SHORTEST_ANSWER = 16  # positions that a prompt must leave for the answer
PATIENCE = 0.02  # seconds between two looks at `cancel` and `deadline` while waiting for a turn


class Engine:
    """Answers questions about images with one model, one caller at a time."""

    def __init__(self, lisa: Lisa, config: EngineConfig = DEFAULTS) -> None:
        """Take over a loaded model, which is switched to inference.

        An engine keeps copies and tables of some weights: after training on, make a new one.
        """
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.lisa, self.config, self.turn = lisa, config, _Turn()
        self.name, self.network = lisa.config.name, lisa.network.eval()
        self.decoder = Decoder(self.network.language_model, self.network.lm_head)
        self.vision = Vision(lisa, config.clip_view or lisa.config.clip_view)
        self.device = self.decoder.device
        self.features = ImageFeatureCache(config.cache_bytes)
        self.searched: Hashable | None = None  # key of the newest image of `sam_features`
        self.prompts = Prompts(lisa)
        self.modes = tuple(self.prompts.suffixes)  # that the model was trained for
        # the image is one id and many positions
        self.prefix_length = len(self.prompts.prefix) - 1 + lisa.config.image_tokens
        self.drafter = NGramDrafter(self.prompts.known_answers())
        self.criteria = StoppingCriteria(
            eos_id=lisa.tokenizer.eos_id,
            seg_id=lisa.tokenizer.seg_id,
            draft_tokens=config.draft_tokens,
            max_masks=config.max_masks,
            max_repeats=config.max_repeats,
        )

    def segment(self, image: np.ndarray, instruction: str, **options: Unpack[AskOptions]) -> Answer:
        """Answer one instruction about an image, uint8 (H, W, 3) RGB.

        Raises `ImageError` and `InstructionError` for what cannot be asked.
        """
        *_, last = self.stream(image, instruction, **options)  # the same way, read to its end
        return last.answer

    def stream(
        self, image: np.ndarray, instruction: str, **options: Unpack[AskOptions]
    ) -> Iterator[Event]:
        """As `segment`, but as events while they happen; the last one is `Finished`.

        Until then the engine is taken: finish the stream or `close` it before the next question.
        """
        limits = {name: options.pop(name, None) for name in ("cancel", "deadline")}
        question = Question(image, instruction, **options)
        for _, event in self.stream_batch([question], **limits):
            yield event

    def segment_batch(
        self,
        questions: Sequence[Question],
        *,
        cancel: Cancel | None = None,
        deadline: float | None = None,
    ) -> list[Answer]:
        """Answer several questions together, about one image or several; answers in their order.

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
            check_question(question, self.config, self.modes)
        if not questions:
            return
        timer, interrupted = StageTimer(self.device), Interruption(cancel, deadline)
        # 1. our turn; what has no time left costs nothing
        reason = interrupted() or self.turn.take(interrupted)
        if reason:
            for index in range(len(questions)):
                yield index, Finished(aborted_answer(reason))
            return
        try:
            # 2. one request for every view of every question's image
            groups = self._open(questions, timer)
            requests = [request for group in groups for request in group]
            single = len(groups) == len(requests)
            # 3. decode; of several views it is only known at the end which one counts
            for request, event in self._decode(requests, timer, interrupted):
                if single:
                    yield requests.index(request), event
            # 4. close: remember what was said, for the next time that it is asked
            for index, group in enumerate(groups):
                best = _surest(group)
                if not single:  # it was chosen after it was complete: its events come now
                    if best.text:
                        yield index, TextDelta(best.text)
                    yield from ((index, MaskReady(one)) for one in best.instances)
                # what was broken off or ran in circles is no good guess
                if best.stopped_by in ("end", "tokens"):
                    self.drafter.remember(best.question, best.ids)
                yield index, Finished(best.answer(group, timer.timings()))
        finally:
            self.features.trim()
            self.turn.release()

    @torch.inference_mode()
    def prepare(self, image: np.ndarray, key: Hashable) -> None:
        """Encode an image before it is asked about: SAM, CLIP and the prompt's beginning."""
        check_image(image, self.config, key)
        with self._taken():
            features = self.features.get(key, image.shape[:2])
            timer = StageTimer(self.device)
            if features.sam is None:
                # first, because on a GPU it runs beside the rest
                self.vision.encode_sam([features], [image], timer)
            if not features.views:
                self.vision.encode_views([features], [image], timer)
            if not features.prefix_kv:
                self._fill_prefixes([features], timer)
            self.vision.join()

    @torch.inference_mode()
    def sam_features(
        self, image: np.ndarray, key: Hashable | None = None
    ) -> tuple[ImageFeatures, bool]:
        """An image's SAM features without a word asked, and whether they had to be computed."""
        check_image(image, self.config, key)
        with self._taken():
            features = self.features.get(key, image.shape[:2])
            missing = features.sam is None
            if missing:
                # for images that follow one another: of those that nobody asked about only the
                # newest stays, or a thing that is looked for would fill the cache
                before = self.features.entries.get(self.searched)
                if before not in (None, features) and not before.views:
                    del self.features.entries[self.searched]
                self.searched = key or self.searched
                self.vision.encode_sam([features], [image], StageTimer(self.device))
            self.vision.join()
            return features, missing

    @torch.inference_mode()
    def decode_masks(self, features: ImageFeatures, embeddings: np.ndarray) -> np.ndarray:
        """Where the things of `[SEG]` embeddings (N, C) are in an image: logits (N, H, W) float32.

        `features`: of `sam_features`. `embeddings`: `Instance.seg_embedding` of answers about any
        image. A mask is where its logits are above zero.
        """
        with self._taken():
            prompts = torch.from_numpy(embeddings).to(self.device, self.vision.dtype)  # (N, C)
            entries = [features] * len(prompts)
            found = self.vision.decode_masks(entries, prompts, StageTimer(self.device))
            return torch.stack(found).cpu().numpy()

    @torch.inference_mode()
    def warm_up(self, *, deadline: float | None = None) -> None:
        """Do now what only a first question pays for: buffers, kernels, on a GPU the graphs.

        `deadline`: as in `segment`; what is not warm by then stays cold.
        """
        image, key = np.zeros((480, 640, 3), np.uint8), object()
        self.prepare(image, key)
        self.segment(image, "-", key=key, max_new_tokens=WARM_UP_TOKENS, deadline=deadline)
        with self._taken():
            # a model that says nothing about a black image has not decoded a mask by now
            features = self.features.entries.pop(key, None)
            if features is not None:
                prompts = self.network.seg_embeddings(self.decoder.embed([0]))  # (1, C)
                self.vision.decode_masks([features], prompts, StageTimer(self.device))
            if self.device.type == "cuda":
                for tokens in WARM_WIDTHS:
                    embeds = self.decoder.embed([0] * tokens)[None]  # (1, T, H)
                    self.decoder.forward(ForwardBatch(embeds, [self.prefix_length]))

    @contextmanager
    def _taken(self) -> Iterator[None]:
        """Our turn with the model, however long others take; no more features stay than may."""
        self.turn.take(Interruption())
        try:
            yield
        finally:
            self.features.trim()
            self.turn.release()

    def _open(self, questions: Sequence[Question], timer: StageTimer) -> list[list[RequestState]]:
        """Encode what is new to the language model; a request for every question and view."""
        entries = [self.features.get(q.key, q.image.shape[:2]) for q in questions]
        # 1. CLIP, once for each image; the first question about it pays
        # backwards, so that of several questions the first one stands
        first = {e: i for i, e in reversed(list(enumerate(entries))) if not e.views}
        if first:
            images = [questions[i].image for i in first.values()]
            self.vision.encode_views(list(first), images, timer)
        # 2. one question about a new image goes through in one pass, several share its beginning
        shared = [e for e, asked in Counter(entries).items() if asked > 1 and not e.prefix_kv]
        if shared:
            self._fill_prefixes(shared, timer)
        # 3. the prompts
        groups = [
            [self._request(question, features, view) for view in range(len(features.views))]
            for question, features in zip(questions, entries, strict=True)
        ]
        for i in first.values():
            groups[i][0].clip_encodes = len(entries[i].views)
        return groups

    def _fill_prefixes(self, entries: Sequence[ImageFeatures], timer: StageTimer) -> None:
        """The prefix cache: one pass over what all prompts about an image begin with."""
        ids = torch.tensor(self.prompts.prefix, device=self.device)
        views = [view for features in entries for view in features.views]
        with timer.stage("prefill"):
            embeds = torch.stack([self.network.embed_prompt(ids, view) for view in views])
            rows, length = embeds.shape[:2]  # (views, prefix_length, H)
            self.decoder.cache.ensure_capacity(rows, length)
            self.decoder.forward(ForwardBatch(embeds, [0] * rows))
            # copies: the next pass writes over these rows
            stored = (self.decoder.cache.store_prefix(row, length) for row in range(rows))
            for features in entries:
                features.prefix_kv = [next(stored) for _ in features.views]

    def _request(self, question: Question, features: ImageFeatures, view: int) -> RequestState:
        """Lay out the prompt about one view; what is kept of its image is not fed again."""
        ids = self.prompts.ids(question)
        length = len(ids) - 1 + len(features.views[view])  # the image's id becomes its positions
        room = self.decoder.max_positions - length
        if room < SHORTEST_ANSWER:
            raise InstructionError(
                f"the instruction is too long for this model: with image and history it takes "
                f"{length} of {self.decoder.max_positions} positions"
            )
        prefix_kv = features.prefix_kv[view] if features.prefix_kv else None
        if prefix_kv is None:
            every = torch.tensor(ids, device=self.device)
            pending = self.network.embed_prompt(every, features.views[view])  # (length, H)
        else:
            pending = self.decoder.embed(ids[len(self.prompts.prefix) :])  # (length - prefix, H)
        # LISA's masks come from the state before the answer, whatever it is; a model that gives
        # each instance its own [SEG] must be let speak
        single_pass = question.mode == "mask" and not self.lisa.config.mask_instances
        return RequestState(
            pending=pending,
            length=length - len(pending),
            # an answer that does not fit behind its prompt is cut like any other
            limit=min(question.max_new_tokens or self.config.max_new_tokens, room),
            prefix_kv=prefix_kv,
            single_pass_unless=self.prompts.refusal if single_pass else None,
            drafts=self.drafter.suggest(question),
            propose=self.drafter.propose,
            question=question,
            features=features,
            lisa=self.lisa,
            keep_empty_masks=self.config.keep_empty_masks,
        )

    def _decode(
        self, requests: list[RequestState], timer: StageTimer, interrupted: Interruption
    ) -> Iterator[tuple[RequestState, Event]]:
        """Run the language model to the end of all answers, decoding masks as they come up."""
        wants_mask = [request for request in requests if request.question.mode != "text"]
        if self.device.type == "cuda" and not interrupted():
            self._encode_sam(wants_mask, timer)  # runs beside the language model
        passes = generate(self.decoder, requests, self.criteria, interrupted)
        stage = "prefill"
        while True:
            with timer.stage(stage):
                steps = next(passes, None)
                if steps and stage == "prefill":
                    # now, before the next pass moves the rows
                    self._keep_prefixes(requests)
            if steps is None:
                break
            masks = self._decode_masks(steps, timer)
            for step, logits in zip(steps, masks, strict=True):
                for event in step.sequence.events(step, logits):
                    if isinstance(event, MaskReady):
                        timer.mark("first_mask")
                    yield step.sequence, event
            stage = "decode"
        for request in requests:
            for event in request.flush():
                yield request, event

    def _keep_prefixes(self, requests: list[RequestState]) -> None:
        """After the first pass over whole prompts: keep the part that belongs to the image."""
        kept: dict[ImageFeatures, list[Tensor]] = {}
        for row, request in enumerate(requests):
            if request.prefix_kv is None and request.question.key is not None:
                prefix = self.decoder.cache.store_prefix(row, self.prefix_length)
                kept.setdefault(request.features, []).append(prefix)
        for features, prefix_kv in kept.items():
            features.prefix_kv = prefix_kv

    def _encode_sam(self, requests: Sequence[RequestState], timer: StageTimer) -> None:
        """Run SAM's encoder over the images that lack it, each once."""
        first = {r.features: r for r in reversed(requests) if r.features.sam is None}
        if first:
            images = [request.question.image for request in first.values()]
            self.vision.encode_sam(list(first), images, timer)
        for request in first.values():
            request.sam_encodes = 1

    def _decode_masks(
        self, steps: list[Step], timer: StageTimer
    ) -> list[dict[int, tuple[Tensor, Tensor]]]:
        """Full-size mask logits (H, W) and SAM prompts (C,) for every step, by the index of the
        state they come from."""
        masks: list[dict[int, tuple[Tensor, Tensor]]] = [{} for _ in steps]
        places = [step.sequence.seg_places(step) for step in steps]
        flat = [(n, place) for n, group in enumerate(places) for place in group]
        if flat:
            # SAM is only run where there is a [SEG]: words alone cost no encoder
            requests = [steps[n].sequence for n, _ in flat]
            self._encode_sam(requests, timer)
            states = torch.stack([steps[n].states[place] for n, place in flat])  # (masks, H)
            entries = [request.features for request in requests]
            prompts = self.network.seg_embeddings(states)  # (masks, C)
            found = self.vision.decode_masks(entries, prompts, timer)
            for (n, place), logits, prompt in zip(flat, found, prompts, strict=True):
                masks[n][place] = logits, prompt
        return masks


class _Turn:
    """Who may use the model now: one caller at a time, whatever thread he comes from."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holder: int | None = None

    def take(self, interrupted: Interruption) -> str:
        """Wait for the turn; gives the reason if the caller was interrupted meanwhile.

        Raises:
            BusyError: this very thread has a stream open, so that waiting would never end.
        """
        while not self.lock.acquire(timeout=PATIENCE):
            if self.holder == threading.get_ident():
                raise BusyError(
                    "this engine is in the middle of a stream: take its last event, or close the "
                    "stream, before the next question"
                )
            reason = interrupted()
            if reason:
                return reason
        self.holder = threading.get_ident()
        return ""

    def release(self) -> None:
        """Let the next one in."""
        self.holder = None
        self.lock.release()


def _surest(group: list[RequestState]) -> RequestState:
    """Of the views of one image, the one whose `[SEG]` was most probable, else the middle one."""
    middle = group[len(group) // 2]
    best = max(group, key=lambda r: max((i.seg_probability for i in r.instances), default=0.0))
    return best if best.instances else middle
