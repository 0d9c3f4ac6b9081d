"""The benchmark compares like with like, and its command works."""

from __future__ import annotations

import argparse
import json
import math
import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import bench, costs, measure, studies
from benchmarks.bench import PRESETS
from benchmarks.measure import busy_neighbours
from benchmarks.presets import random_lisa, teach
from benchmarks.roofline import Machine, StageCost, count_flop
from lisa_ros.cli import main
from lisa_ros.engine import Answer, AnswerStatus, Engine, Instance, Question
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.quantization import multiplies_natively
from lisa_tabletop.world.camera import SceneView


@pytest.mark.parametrize("schedule", (measure.reference, measure.library))
def test_baselines_give_the_engines_answer(schedule: measure.Schedule) -> None:
    lisa = random_lisa("tiny")
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    ids = [10, 11, lisa.tokenizer.seg_id, 12, 13, 14]
    teach(lisa, ids)
    prompt = Engine(lisa).prompts.ids(Question(image, "the mug"))
    outcome = schedule(lisa, image, prompt, len(ids))
    answer = Engine(lisa).segment(image, "the mug", max_new_tokens=len(ids))
    assert outcome.ids == ids
    assert answer.counters["tokens"] == len(ids)
    [instance], [logits] = answer.instances, outcome.masks.numpy()
    assert ((instance.mask == (logits > 0)) | (np.abs(logits) < 1e-3)).all()


# Operations of the authors' `evaluate`: the shapes of lisa-35m, one image, a prompt of 40 ids,
# counted once by the same counter: six tokens without `[SEG]` and with one.
AUTHORS_FLOP = {(6, False): 188.197e9, (6, True): 191.803e9}


@pytest.mark.parametrize(("length", "with_seg"), AUTHORS_FLOP)
def test_the_reference_schedule_costs_what_the_authors_code_costs(
    length: int, with_seg: bool
) -> None:
    """Each token runs CLIP and the whole sequence; SAM runs at the end, also without `[SEG]`."""
    lisa = random_lisa("lisa-35m")
    image = np.zeros((480, 640, 3), np.uint8)
    prompt = Engine(lisa).prompts.ids(Question(image, "the red mug"))
    assert len(prompt) == 40
    ids = [i for i in range(10, 60) if i not in (lisa.tokenizer.seg_id, prompt[-1])][:length]
    if with_seg:
        ids[5] = lisa.tokenizer.seg_id
    teach(lisa, ids)
    flop = count_flop(lambda: measure.reference(lisa, image, prompt, length))
    # the authors compute a last layer of CLIP that nothing reads, and which is not loaded here
    tower = lisa.network.vision_tower
    pixels = torch.zeros(1, 3, 224, 224)
    unused = count_flop(lambda: lisa.network.encode_view(pixels)) / len(tower.encoder.layers)
    assert flop + length * unused == pytest.approx(AUTHORS_FLOP[length, with_seg], rel=0.005)


@pytest.mark.parametrize("preset", [name for name in PRESETS if name[-1] != "b"])
def test_every_preset_that_fits_a_processor_is_made(preset: str) -> None:
    assert random_lisa(preset).config.image_tokens > 0


def test_mixed_precision_is_for_the_engine_and_not_for_what_it_is_held_against() -> None:
    bench = measure._Bench(random_lisa("tiny", sam_dtype=torch.bfloat16), rounds=1)
    bench.say(8)
    weight = bench.plain.network.image_encoder.patch_embed.projection.weight
    assert weight.dtype == torch.bfloat16
    reference = bench.reference.network
    assert reference.image_encoder.patch_embed.projection.weight.dtype == torch.float32
    assert reference.lm_head is bench.plain.network.lm_head  # what is taught is taught to both
    assert len(bench.schedules(8)) == 5


def test_ways_to_encode_an_image_are_held_against_transformers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # what the user sets wins
    arguments = ["--study", "sam", "--presets", "tiny", "--rounds", "1", "--device", "cpu"]
    assert main(["bench", *arguments]) == 0
    assert torch.get_num_threads() == 1
    rows = [row.split("|") for row in capsys.readouterr().out.splitlines()]
    found = {(row[3].strip(), row[4].strip()): row[7].strip() for row in rows if len(row) == 9}
    assert found["float32", "dense"] == "0"  # to the last bit
    assert 0 < float(found["float32", "fold"]) < 1e-3


def test_a_known_frame_costs_no_encoder_and_a_batch_shares_the_reading() -> None:
    new, known = costs.count("tiny")
    assert new.keys() - known.keys() == {"CLIP", "SAM", "prompt"}
    assert known["question"].flop < new["prompt"].flop
    encoder = random_lisa("tiny", dtype=torch.bfloat16).network.image_encoder
    assert new["SAM"].weights == sum(p.nbytes for p in encoder.parameters())
    gpu = costs.Gpu("slow memory", flops=1e15, bandwidth=1e9, watts=100)
    one, many = (new["answer"].seconds(gpu, batch) for batch in (1, 8))
    read = new["answer"].times * new["answer"].weights / gpu.bandwidth
    assert one - many == pytest.approx(7 / 8 * read)


def test_the_plan_for_fleets_follows_the_bounds() -> None:
    stages = [stage for frame in costs.count("tiny") for stage in frame.values()]
    gpu = next(one for one in costs.GPUS if one.name == "H100 SXM")
    busy = sum(stage.seconds(gpu, costs.BATCH) for stage in stages)
    line = next(row for row in costs.plan("tiny").splitlines() if gpu.name in row)
    *needed, hours = (int(cell.replace(",", "")) for cell in line.split("|")[2:-1])
    most = [robots * busy / costs.PERIOD / costs.REACHED / costs.LOAD for robots in costs.FLEETS]
    assert needed == [math.ceil(one) for one in most]
    assert hours == round(most[0] / costs.FLEETS[0] * costs.PERIOD / 2 * 1e6 / 3600)


def test_a_taught_answer_must_be_a_chain() -> None:
    with pytest.raises(ValueError, match="twice"):
        teach(random_lisa("tiny"), [10, 11, 10])


def test_presets_compute_in_the_precision_that_is_asked_for() -> None:
    network = random_lisa("tiny", dtype=torch.bfloat16).network
    assert network.lm_head.weight.dtype == torch.bfloat16
    assert network.image_encoder.neck.conv1.weight.dtype == torch.float32


def test_a_bound_is_set_by_what_takes_longer() -> None:
    machine = Machine("m", "t", 1, "float32", copy_bandwidth=1e9, matmul_rate=1e9, load=0.0)
    assert StageCost("arithmetic", 9.0, flop=2e6, bytes=1e6).bound_ms(machine) == 2
    assert StageCost("memory", 9.0, flop=1e6, bytes=3e6).bound_ms(machine) == 3


def test_the_command_prints_tables_and_writes_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    numbers = tmp_path / "bench.json"
    arguments = ["--presets", "tiny", "--rounds", "1", "--lengths", "8", "--json", str(numbers)]
    assert main(["bench", "--device", "cpu", *arguments]) == 0
    printed = capsys.readouterr().out
    for text in (
        "reference schedule",
        "transformers generate",
        "of the roof",
        "times its bound",
        "n-th question",
        "beside processes that keep a core busy",
    ):
        assert text in printed
    [preset] = json.loads(numbers.read_text())["presets"]
    passes = {timing["case"]: timing["forwards"] for timing in preset["timings"]}
    assert passes["reference schedule"] == passes["engine, known frame"] == 8
    assert passes["engine, standing question"] == passes["engine, template, new frame"] == 1
    assert passes["engine, mask mode, new frame"] == 1
    assert len(preset["stages"]) == 6
    assert [point["count"] for point in preset["neighbours"]] == [0, 1, 2]


def test_neighbours_take_processor_time_and_end_with_their_block() -> None:
    with busy_neighbours(2) as processes:
        assert [process.poll() for process in processes] == [None, None]
    assert None not in [process.poll() for process in processes]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--lengths 3", "--lengths must be from 6 to 400 tokens"),
        ("--lengths 20 5000", "--lengths must be from 6 to 400 tokens"),
        ("--device foo", "there is no device 'foo'"),
        ("--device cuda:99", "cuda:99"),
        ("--threads -3", "--threads must be at least 1, it is -3"),
        ("--busy -1", "--busy must be at least 0, it is -1"),
        ("--study sam --rounds 0", "--rounds must be at least 1, it is 0"),
        ("--study views --scenes 0", "--scenes must be at least 1, it is 0"),
        ("--study quantization --scenes -1", "--scenes must be at least 1, it is -1"),
        ("--scenes 3", "the bench without --study has no use for --scenes"),
        ("--study sam --json new", "--study sam has no use for --json"),
        ("--study views --plot new.png", "--study views has no use for --plot"),
        ("--study quantization --presets tiny", "has no use for --presets"),
        ("--study quantization --dtype mixed", "compares mixed anyway"),
        ("--plot new.xyz", "its ending names no image"),
        ("--json nowhere/new", "there is no folder nowhere"),
        ("--write nowhere.md", "cannot put a table into nowhere.md: No such file or directory"),
        (
            "--write page.md --dtype bfloat16",
            "no place for this table: put the lines",
        ),
    ],
)
def test_what_cannot_be_measured_is_told_before_anything_is_measured(
    words: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.md").write_text("# A page\n<!-- table: sam -->\n<!-- end of table -->\n")
    monkeypatch.setattr(measure, "busy_neighbours", lambda count: pytest.fail("it measures"))
    assert main(["bench", *words.split()]) == 2
    assert sentence in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


def test_the_commands_of_the_page_can_be_given() -> None:
    """Every `lisa-ros bench` of docs/performance.md, with its presets, studies and options."""
    page = Path(bench.__file__).parents[1] / "docs" / "performance.md"
    lines = re.findall(r"lisa-ros bench (--[^`\n#]*)", page.read_text(encoding="utf-8"))
    lines += re.findall(r'make bench ARGS="([^"]*)"', page.read_text(encoding="utf-8"))
    assert len(lines) > 9
    for line in lines:
        parser = argparse.ArgumentParser()
        bench.add_arguments(parser)
        args = parser.parse_args(line.split())
        args.write, args.device = args.write and page, "cpu"
        if args.dtype != "mixed" or multiplies_natively(torch.bfloat16, torch.device("cpu")):
            bench.check(args)


def test_studies_use_threads_and_neighbours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    beside, asked = [], {}
    monkeypatch.setattr(measure, "busy_neighbours", lambda n: nullcontext(beside.append(n)))

    def compare(engines: dict[str, Engine], scenes: int) -> list[studies.ViewResult]:
        asked.update({view: engine.config.threads for view, engine in engines.items()})
        return [studies.ViewResult("squash", 0.5, 0.25, (scenes, 1), 9.0)]

    monkeypatch.setattr(studies, "compare_views", compare)
    words = "--study views --threads 1 --busy 2 --scenes 7 --device cpu"
    assert main(["bench", *words.split()]) == 0
    assert (beside, set(asked), set(asked.values())) == ([2], {"center", "squash", "tiles"}, {1})
    assert "inside (7)" in capsys.readouterr().out


def test_a_preset_without_room_is_left_out_and_the_others_stay_in_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    page, one = tmp_path / "page.md", measure.measure_preset
    before = "### nano, of an earlier call\n\nold nano\n\n### tiny, of one before\n\nold tiny\n"
    page.write_text(f"Top\n<!-- table: bench -->\n\n{before}\n<!-- end of table -->\nBottom\n")

    def measured(lisa: Lisa, *more: object) -> measure.Measurements:
        if lisa.config.name == "nano":
            raise torch.OutOfMemoryError
        return one(lisa, *more)

    monkeypatch.setattr(measure, "measure_preset", measured)
    monkeypatch.setattr(measure, "NTH", (1, 2))
    monkeypatch.setattr(measure, "ROUNDS_BESIDE", 1)
    words = f"--device cpu --presets nano tiny --rounds 1 --lengths 8 --write {page}"
    assert main(["bench", *words.split()]) == 0
    printed, written = capsys.readouterr(), page.read_text()
    assert "nano is left out: not enough memory on cpu" in printed.err
    assert f"{page} keeps its tables of nano" in printed.out
    assert "old nano" in written and "old tiny" not in written
    assert written.count("### tiny, ") == 1 and "reference schedule" in written
    assert written.startswith("Top\n") and written.endswith("Bottom\n")
    assert main(["bench", "--device", "cpu", "--presets", "nano", "--rounds", "1"]) == 2
    assert "not enough memory" in capsys.readouterr().err


def tabletop(u: int) -> SceneView:
    """A view with one red mug whose middle is at column `u`."""
    instances = np.zeros((48, 64), np.uint8)
    instances[20:28, u - 4 : u + 4] = 1
    record = {
        "seed": u,
        "width": 64,
        "height": 48,
        "objects": [{"id": 1, "kind": "mug", "color": "red", "visible": 1.0}],
    }
    return SceneView(
        rgb=np.zeros((48, 64, 3), np.uint8),
        depth=np.ones((48, 64), np.float32),
        instances=instances,
        intrinsics=np.eye(3),
        camera_pose=np.eye(4),
        record=record,
    )


class Finder:
    """An engine that finds what stands left of a column, as a box."""

    def __init__(self, until: int) -> None:
        self.until, self.asked = until, []

    def segment(self, image: np.ndarray, words: str, key: int) -> Answer:
        self.asked.append(words)
        mask = np.zeros(image.shape[:2], bool)
        mask[20:28, 4 * key : 4 * key + 8] = 4 * key < self.until
        found = [Instance(mask, 1.0, 1.0, words)] if mask.any() else []
        return Answer("", AnswerStatus.OK, found, timings={"total": 1.0})


def test_views_are_compared_by_where_the_object_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    # the central square of 64x48 begins at column 8; object n covers 4 n to 4 n + 8
    monkeypatch.setattr(studies, "_turned_views", lambda n: [tabletop(4 * k + 4) for k in range(n)])
    engines = {"all": Finder(until=99), "left": Finder(until=8)}
    everything, left = studies.compare_views(engines, scenes=6)
    assert everything.counts == left.counts == (4, 1)  # the one that is half shown is left out
    assert (everything.inside, everything.outside) == (1, 1)
    assert (left.inside, left.outside) == (0, 1)
    assert set(engines["all"].asked) == {"the red mug"}


def test_a_quantized_model_that_finds_other_things_does_not_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    questions = [(k, tabletop(4 * k + 4).rgb, "the red mug") for k in range(10)]
    monkeypatch.setattr(studies, "_questions", lambda scenes: iter(questions))
    same, other = studies.quantization_gate(
        Finder(until=99), {"int8": Finder(until=99), "int4": Finder(until=36)}, scenes=1
    )
    assert (same.mean_iou, same.least_iou, same.passed) == (1, 1, True)
    assert (other.mean_iou, other.least_iou, other.passed) == (0.9, 0, False)
